"""Measure the size of a server image without Python, and the time until a server is ready."""

import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.rows import Row, skipped
from benchmarks.sample import Sample
from tests.support.server import ROOT, start_server

SOURCES = ("app", "migrations", "pyproject.toml", "README.md")
EXTRAS = {"": "without torch", "[cast]": "with the extra cast"}


def rows(bench: Bench) -> Iterator[Row]:
    """Install each environment as the Dockerfile does, and start servers on an empty data dir in turns."""
    environments = {}
    for extra, what in EXTRAS.items():
        folder = bench.folder / f"footprint-{what.replace(' ', '-')}"
        try:
            _install(bench.folder, folder, extra)
        except subprocess.CalledProcessError:
            yield skipped("size", f"the server {what}", "pip could not install it")
        else:
            environments[what] = folder
    seconds: dict[str, list[float]] = {what: [] for what in environments}
    for turn in range(bench.rounds + 1):
        for what, folder in environments.items():
            ready = _start(folder, bench.folder / "footprint-data")
            if turn:  # the first start only fills the page cache
                seconds[what].append(ready)
    for what, folder in environments.items():
        packages = len(list(next((folder / "lib").glob("*/site-packages")).glob("*.dist-info")))
        size = Sample((_size(folder) / 1e6,), "less", "MB")
        yield Row("size", f"installed {what}", f"{packages} packages", measured=size)
        took = Sample(tuple(seconds[what]), "less", "s")
        yield Row("start", f"ready {what}, database made and migrated", measured=took)


def _install(scratch: Path, folder: Path, extra: str) -> None:
    source = scratch / "footprint-source"
    shutil.rmtree(source, ignore_errors=True)  # otherwise a build would include leftovers of the last one
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    venv.create(folder, symlinks=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "--python",
        str(folder / "bin/python"),
    ]
    subprocess.run([*pip, "install", "-c", str(ROOT / "constraints.txt"), f"{source}{extra}"], check=True)


def _size(folder: Path) -> int:
    """Bytes of all files in ``folder``."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def _start(environment: Path, data_dir: Path) -> float:
    """Seconds from the command until the server reports that it is ready."""
    began = time.perf_counter()
    server = start_server(data_dir, env={"PYTHONPATH": ""}, command=(str(environment / "bin/stateroom-server"),))
    took = time.perf_counter() - began
    server.kill()
    shutil.rmtree(data_dir)
    return took
