"""``python -m benchmarks [--only QUESTION ...]``: run the scripts, print the table. Exits with 1 if a bar is missed, 2
if a script failed or was interrupted."""

import argparse
import json
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import (
    client_download,
    client_save,
    commits,
    derived_downloads,
    distributed,
    follow,
    footprint,
    giants,
    hub_download,
    inside,
    long_locks,
    many_checkpoints,
    many_clients,
    object_storage,
    pages,
    plain_download,
    plain_upload,
    retention,
    server_memory,
    slices,
    small_checkpoints,
    waiting_clients,
    warm_start,
    worst_bodies,
)
from benchmarks.bench import Bench
from benchmarks.environment import PROBED, environment
from benchmarks.rows import Row, skipped, table

QUESTIONS = {
    script.__name__.rpartition(".")[2]: script
    for script in (
        plain_download,
        client_download,
        plain_upload,
        client_save,
        warm_start,
        derived_downloads,
        server_memory,
        many_clients,
        giants,
        small_checkpoints,
        many_checkpoints,
        slices,
        distributed,
        hub_download,
        follow,
        inside,
        long_locks,
        object_storage,
        pages,
        waiting_clients,
        commits,
        retention,
        footprint,
        worst_bodies,
    )
}
USUAL = tuple(QUESTIONS)[: tuple(QUESTIONS).index("many_checkpoints")]
"""The questions of the bars P1 to P13 but P9, a quarter of an hour on two quiet cores. The others run when they are
named; P9 fills two catalogs with a million checkpoints first.
"""

ALL = "all"
UNITS = {"": 1, "MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}


def nbytes(text: str) -> int:
    found = re.fullmatch(r"([0-9.]+) ?(\w*)", text)
    if found is None or found[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"not a size: {text} (for example 1.04GB)")
    return int(float(found[1]) * UNITS[found[2]])


def main() -> int:
    options = _options()
    options.folder = options.folder.resolve()  # nginx resolves relative paths from its own prefix
    options.folder.mkdir(parents=True, exist_ok=True)
    facts, rows, failed = environment(min(PROBED, options.big)), [], False
    took: dict[str, float] = {}
    _tell("\n".join(f"{name}: {fact}" for name, fact in facts.items()))
    with tempfile.TemporaryDirectory(prefix="stateroom-bench-", dir=options.folder) as folder:
        bench = Bench(Path(folder), options.size, options.big, options.rounds, not options.no_peers)
        for name in options.only:
            began = time.monotonic()
            try:
                rows += QUESTIONS[name].rows(bench)
            except KeyboardInterrupt:
                rows.append(skipped(name, "all of it", "interrupted; what was measured before is in this table"))
                failed = True
                break
            except Exception as error:  # noqa: BLE001 - the figures of the other questions are not lost
                traceback.print_exc()
                rows.append(skipped(name, "all of it", f"failed: {_in_short(error)}"))
                failed = True
            took[name] = time.monotonic() - began
            _tell(f"{name}: {(QUESTIONS[name].__doc__ or '').splitlines()[0]} {took[name]:.0f} s")
    print(table(rows))
    facts |= {"size": f"{options.size:,} bytes, {options.rounds} rounds", "time": _times(took, bench.spent)}
    _tell(f"time: {facts['time']}")
    _write(options.json, facts, rows)
    return 2 if failed else int(any(row.verdict == "short" for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=(*QUESTIONS, ALL),
        default=USUAL,
        metavar="QUESTION",
        help=f"{ALL}, or some of {', '.join(QUESTIONS)}; left out: the bars P1 to P13 but P9",
    )
    parser.add_argument("--size", type=nbytes, default=nbytes("1.04GB"), help="of the general checkpoint (1.04GB)")
    parser.add_argument("--big", type=nbytes, default=nbytes("4GiB"), help="of the one for server memory (4GiB)")
    parser.add_argument("--rounds", type=int, default=7, help="times that everything is timed (7)")
    parser.add_argument(
        "--folder", type=Path, default=Path("build"), help="where to write some 12 GB for a while (build)"
    )
    parser.add_argument("--no-peers", action="store_true", help="leave out nginx and MLflow")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("build/bench") / time.strftime("%Y-%m-%d-%H%M%S.json"),
        help="where to write the results (build/bench/DATE.json)",
    )
    options = parser.parse_args()
    if ALL in options.only:
        options.only = tuple(QUESTIONS)
    return options


def _in_short(error: Exception) -> str:
    """The kind and the last line of an error: a table has no room for the log of a server that did not start."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1][:100]}"


def _times(took: Mapping[str, float], spent: Mapping[str, float]) -> str:
    """How long all took, each question, and what of it went into the setting."""
    each, setting = (", ".join(f"{name} {seconds:.0f} s" for name, seconds in some.items()) for some in (took, spent))
    return f"{sum(took.values()) / 60:.1f} min: {each}" + (f"; of it {setting}" if setting else "")


def _write(path: Path, facts: dict[str, str], rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"environment": facts, "rows": [row.to_json() for row in rows]}
    path.write_text(json.dumps(document, indent=1) + "\n")
    _tell(f"The results are in {path}; make bench-compare OLD=... NEW=... compares two runs.")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
