"""``make fuzz``: coverage-guided fuzzing of the readers; exits with 1 if anything is wrong.

With files, those are read and judged once more: a finding says how to see it again.
"""

import argparse
import hashlib
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.fuzz.counts import Count
from tests.fuzz.findings import Findings, reproduce
from tests.fuzz.jobs import Asked, Job
from tests.fuzz.judging import Judging
from tests.fuzz.seeds import seeds
from tests.fuzz.watch import Fault, Watch

EXECUTIONS = 2_000_000
TOLD_EVERY = 30.0
LAST_JUDGED = 600.0
"""Seconds that the judge has at the end for what waits."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--executions", type=int, default=EXECUTIONS)
    parser.add_argument("--seconds", type=float, default=0, help="at most; 0 is without end")
    parser.add_argument("--jobs", type=int, default=1, help="processes that fuzz, beside the one that judges")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="one of an earlier run, to go on with its corpus")
    parser.add_argument("files", type=Path, nargs="*")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.simplefilter("ignore")  # torch's, of what is wrong with a file
    if asked.files:
        return again(asked.files)
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="stateroom-fuzz-"))
    for name in ("seeds", "corpus", "sampled", "findings"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for data in seeds():
        (folder / "seeds" / hashlib.sha1(data).hexdigest()).write_bytes(data)
    findings = Findings(folder / "findings")
    judging = Judging(folder, findings)
    each = Asked(-(-asked.executions // asked.jobs), asked.seconds, asked.seed)
    print(f"findings, corpus and logs are in {folder}", flush=True)
    began = time.monotonic()
    jobs = [Job(number, folder, each, findings) for number in range(asked.jobs)]
    try:
        told = began
        running = jobs
        while running:
            judging.catch_up(time.monotonic() + 1)
            if time.monotonic() - told > TOLD_EVERY:
                told = time.monotonic()
                print(progress(jobs, told - began, judging, findings), flush=True)
            time.sleep(0.5)
            running = [job for job in running if job.goes_on()]
        seconds = time.monotonic() - began
        judging.catch_up(time.monotonic() + LAST_JUDGED)
    except KeyboardInterrupt:  # SIGTERM too: what was found until then is told
        seconds = time.monotonic() - began
    finally:
        for job in jobs:
            job.stop()
        judging.close()
    return tell(jobs, seconds, judging, findings)


def total(jobs: list[Job]) -> Count:
    return sum((job.count() for job in jobs), Count())


def progress(jobs: list[Job], seconds: float, judging: Judging, findings: Findings) -> str:
    count = total(jobs)
    edges, features, _ = jobs[0].coverage()
    return (
        f"{seconds:>7,.0f} s {count.executions:>11,} executions {count.executions / seconds:>7,.0f}/s "
        f"{count.accepted / max(1, count.executions):>4.0%} accepted {judging.outcomes.total():>8,} judged "
        f"{edges:>6,} edges {features:>7,} features {len(findings.kinds()):>3} findings"
    )


def tell(jobs: list[Job], seconds: float, judging: Judging, findings: Findings) -> int:
    count, kinds = total(jobs), findings.kinds()
    edges, features, files = jobs[0].coverage()
    rows = {
        "executions": count.executions,
        "executions a second": round(count.executions / seconds),
        "executions a second of CPU": round(count.executions * 1e9 / max(1, count.cpu)),
        "accepted": count.accepted,
        "refused": count.executions - count.accepted,
        "given up as slow, read again": count.slow,
        **{f"judged: {outcome}": number for outcome, number in sorted(judging.outcomes.items())},
        "edges": edges,
        "features": features,
        "files that reach them": files,
        "kinds of findings": len(kinds),
    }
    for name, number in rows.items():
        print(f"{number:>13,}  {name}")
    for kind, path in kinds.items():
        print(f"FOUND: {kind}\n       {reproduce(path)}")
    if not kinds and "stateroom-fuzz-" in findings.folder.parent.name:
        shutil.rmtree(findings.folder.parent)
    return 1 if kinds else 0


def again(files: list[Path]) -> int:
    watch, wrong = Watch(), 0
    with tempfile.TemporaryDirectory() as name:
        judging = Judging(Path(name), Findings(Path(name)))
        for path in files:
            data = path.read_bytes()
            outcome = judging.fault_of(data)
            if outcome is None:
                read = watch.read(data)
                outcome = read if isinstance(read, Fault) else None
            wrong += outcome is not None
            print(f"{path.name}: {outcome.detail if outcome else 'nothing is wrong with it'}")
        judging.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
