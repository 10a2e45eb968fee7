"""``make peers [PEERS="--only torch/serialization"]``: a table; exits with 1 if anything differs, or nothing ran."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.peers.report import HEAD, Tally, details, row, tally
from tests.peers.served import WAYS
from tests.peers.sources import NotToBeHad, install
from tests.peers.suites import SUITES, Suite
from tests.support.server import PYTHON_M_APP, ROOT, Server, start_server

LONGEST = 1800.0
"""Seconds that one suite may take."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="suites by the beginning of their names")
    parser.add_argument("--all", action="store_true", help="the long suites too")
    parser.add_argument("--ways", default=",".join(WAYS), help="of %(default)s")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "peers", help="where suites are kept")
    asked = parser.parse_args()
    chosen = [s for s in SUITES if (s.name.startswith(tuple(asked.only)) if asked.only else s.usual or asked.all)]
    rows, wrong, ran = [], False, 0
    for suite in chosen:
        try:
            folder = suite.get(asked.cache) / suite.inside
            packages = install(suite.needs, asked.cache)
        except NotToBeHad as error:
            rows.append(f"{suite.name:<24}skipped: {error}")
            continue
        count = run(suite, folder, packages, asked.ways)
        rows += [row(suite.name, count), *details(count)]
        print("\n".join(rows[-1 - len(details(count)) :]), flush=True)
        wrong |= count.wrong or not count.outcomes.total()
        ran += 1
    print("", HEAD, *(line for line in rows if not line.startswith(" ")), sep="\n")
    return 1 if wrong or not ran else 0


def run(suite: Suite, folder: Path, packages: Path, ways: str) -> Tally:
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        log, plain = Path(name) / "findings.jsonl", Path(name) / "plain.jsonl"
        run_tests(suite, folder, packages, ways, None, plain)
        server = start_server(Path(name) / "data", env={"STATEROOM_DURABLE": "off"}, command=PYTHON_M_APP)
        try:
            run_tests(suite, folder, packages, ways, server, log)
            if not log.exists():
                print((log.parent / "pytest.log").read_text()[-2000:])
            count = tally(log, [request["status"] for request in server.requests])
            count.broken = count.failed - tally(plain, []).failed
            return count
        finally:
            server.stop()


def run_tests(suite: Suite, folder: Path, packages: Path, ways: str, server: Server | None, log: Path) -> None:
    """Run the suite's tests with nobody's configuration, through ``server`` if any. The log has the outcomes."""
    options = {
        "-c": os.devnull,
        "--rootdir": ".",
        "-k": suite.chosen,
        "-W": "ignore",
        "--peers-url": server.base_url if server else "",
        "--peers-log": str(log),
        "--peers-ways": ways,
        "--peers-names": json.dumps(suite.names),
    }
    given = [word for name, value in options.items() if value for word in (name, value)]
    given += [] if suite.conftest else ["--noconftest"]
    with (log.parent / "pytest.log").open("w") as said:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-p",
                "tests.peers.plugin",
                *given,
                *suite.files,
            ],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (ROOT, packages, folder))),
                "PYTHONSAFEPATH": "1",  # a suite may have a package called tests as well
                "OMP_NUM_THREADS": "1",
            },
            stdout=said,
            stderr=subprocess.STDOUT,
            timeout=LONGEST,
            check=False,
        )


if __name__ == "__main__":
    sys.exit(main())
