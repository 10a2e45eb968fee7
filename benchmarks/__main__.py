"""``python -m benchmarks [--only QUESTION ...]``: run the scripts, print the table. Exits with 1 if a bar is missed."""

import argparse
import re
import sys
import tempfile
from pathlib import Path

from benchmarks import (
    client_download,
    client_save,
    commits,
    derived_downloads,
    follow,
    footprint,
    giants,
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
    waiting_clients,
    warm_start,
    worst_bodies,
)
from benchmarks.bench import Bench
from benchmarks.rows import table

QUESTIONS = {
    script.__name__.rpartition(".")[2]: script
    for script in (
        plain_download,
        client_download,
        plain_upload,
        client_save,
        warm_start,
        slices,
        follow,
        inside,
        derived_downloads,
        server_memory,
        many_checkpoints,
        long_locks,
        many_clients,
        object_storage,
        pages,
        waiting_clients,
        commits,
        retention,
        giants,
        footprint,
        worst_bodies,
    )
}
UNITS = {"": 1, "MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}


def nbytes(text: str) -> int:
    found = re.fullmatch(r"([0-9.]+) ?(\w*)", text)
    if found is None or found[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"not a size: {text} (for example 1.04GB)")
    return int(float(found[1]) * UNITS[found[2]])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=QUESTIONS, default=QUESTIONS, metavar="QUESTION", help=", ".join(QUESTIONS)
    )
    parser.add_argument("--size", type=nbytes, default=nbytes("1.04GB"), help="of the general checkpoint (1.04GB)")
    parser.add_argument("--big", type=nbytes, default=nbytes("4GiB"), help="of the one for server memory (4GiB)")
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is timed (5)")
    parser.add_argument(
        "--folder", type=Path, default=Path("build"), help="where to write some 12 GB for a while (build)"
    )
    options = parser.parse_args()
    options.folder = options.folder.resolve()  # nginx resolves relative paths from its own prefix
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="stateroom-bench-", dir=options.folder) as folder:
        bench = Bench(Path(folder), options.size, options.big, options.rounds)
        for name in options.only:
            print(f"{name}: {(QUESTIONS[name].__doc__ or '').splitlines()[0]}", file=sys.stderr, flush=True)
            rows += QUESTIONS[name].rows(bench)
    print(table(rows))
    return int(any(row.verdict == "short" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
