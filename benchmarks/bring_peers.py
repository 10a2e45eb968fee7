"""``python -m benchmarks.bring_peers``: bring the peers that are missing, or say why their rows will be skipped.

nginx is unpacked from a package of apt, which installs nothing and starts no service. MLflow pins what it needs, so it
gets an environment of its own. Both stay in build/, outside of the system and of .venv.
"""

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import BROUGHT, PEERS, ROOT

PACKAGES = "nginx", "nginx-core", "nginx-light"
"""Packages that have the program, in some release of Debian or Ubuntu."""

MLFLOW = "mlflow==3.17.0"


class Failed(Exception):
    pass


def main() -> None:
    bring: dict[str, Callable[[Path], None]] = {"nginx": bring_nginx, "mlflow": bring_mlflow}
    for peer in PEERS:
        if peer.installed:
            continue
        print(f"Bringing {peer.program} for the benchmarks, only the first time.", flush=True)
        folder = BROUGHT / peer.own.partition("/")[0]
        shutil.rmtree(folder, ignore_errors=True)
        try:
            bring[peer.program](folder)
        except Failed as failed:
            shutil.rmtree(folder, ignore_errors=True)
            print(f"{peer.name} is skipped: {failed}", flush=True)


def bring_nginx(folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Failed("there is no apt; install nginx by hand")
    folder.mkdir(parents=True)
    why = ""
    for package in PACKAGES:
        try:
            _run("apt-get", "download", package, folder=folder)
            for file in folder.glob(f"{package}_*.deb"):
                _run("dpkg-deb", "--extract", file.name, ".", folder=folder)
        except Failed as failed:
            why = str(failed)
        if (folder / "usr" / "sbin" / "nginx").exists():
            return
    raise Failed(why or "no package of apt has it; install nginx by hand")


def bring_mlflow(folder: Path) -> None:
    venv.create(folder, symlinks=True)
    pip = (
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "--python",
        str(folder / "bin/python"),
    )
    _run(*pip, "install", MLFLOW, folder=ROOT)


def _run(*command: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        lines = done.stdout.strip().splitlines() or [f"{command[0]} exited with {done.returncode}"]
        raise Failed(lines[-1])


if __name__ == "__main__":
    main()
