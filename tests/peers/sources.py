"""Sources of the suites: Debian's source packages and the package index, each by name, each once."""

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

RELEASE = "trixie"
"""The Debian release whose sources are read."""


class NotToBeHad(Exception):
    """A suite cannot be fetched here; the text says why."""


def debian(package: str, only: str, cache: Path) -> Path:
    """The folder of a Debian source package, of which the files below ``only`` alone are unpacked.

    apt gets a list of sources, an index and a cache of its own, so nothing of the machine's changes.
    """
    folder = cache / package
    if not (found := list(folder.glob("*.orig.tar.*"))):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (folder / "sources.list").write_text(f"deb-src {mirror()} {RELEASE} main\n")
        options = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "APT::Sandbox::User": "root",
        }
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        ran("apt-get", "-qq", *given, "update")
        ran("apt-get", "-qq", *given, "source", "--download-only", package, cwd=folder)
        found = list(folder.glob("*.orig.tar.*"))
    return unpacked(found[0], folder / "source", only)


def sdist(package: str, cache: Path, *options: str, env: Mapping[str, str] | None = None) -> Path:
    """The folder of a source archive that the package index has; nothing of it is installed. ``options`` are pip's."""
    folder = cache / package
    if not (found := list(folder.glob("*.tar.gz"))):
        ran(sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps", "--no-binary",
            ":all:", "-d", str(folder), *options, package, env=env)  # fmt: skip
        found = list(folder.glob("*.tar.gz"))
    return unpacked(found[0], folder / "source", "")


def sdist_unbuilt(package: str, cache: Path) -> Path:
    """Do as ``sdist`` for a package that maturin builds: pip asks it for the name and the version, which needs Rust."""
    backend = cache / "unbuilt"
    backend.mkdir(parents=True, exist_ok=True)
    (backend / "maturin.py").write_text(UNBUILT)
    return sdist(package, cache, "--no-build-isolation", env={"PYTHONPATH": str(backend)})


UNBUILT = """
import shutil
from email.parser import HeaderParser
from pathlib import Path

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    said = HeaderParser().parsestr(Path("PKG-INFO").read_text())
    info = Path(folder) / f"{said['Name']}-{said['Version']}.dist-info"
    info.mkdir()
    shutil.copy("PKG-INFO", info / "METADATA")
    return info.name
"""
"""A build backend that copies what a source archive says of itself, and builds nothing."""


def without_tests(package: str, _: Path) -> NoReturn:
    raise NotToBeHad(f"the source archives of {package} come without tests of checkpoints")


def install(packages: tuple[str, ...], cache: Path) -> Path:
    """A folder for PYTHONPATH that holds what a suite imports besides; those packages alone, nothing they depend on."""
    folder = cache / "packages" / "+".join(re.sub(r"\W", "-", name) for name in packages)
    if packages and not folder.exists():
        ran(sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps", "--no-compile",
            "--target", str(folder), *packages)  # fmt: skip
    return folder


def mirror() -> str:
    """The Debian archive that this machine uses already."""
    try:
        listed = subprocess.run(["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)"],
                                capture_output=True, text=True, check=True).stdout  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotToBeHad(f"no apt here: {error}") from error
    for line in listed.splitlines():
        origin, _, address = line.partition(" ")
        if origin == "Debian":
            return address
    raise NotToBeHad("apt knows no Debian archive here; `apt-get update` makes it known")


def unpacked(archive: Path, folder: Path, only: str) -> Path:
    if not folder.exists():
        with tarfile.open(archive) as opened:
            opened.extractall(folder, members=_below(opened, only), filter="data")
    return next(folder.iterdir())


def _below(archive: tarfile.TarFile, only: str) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        if member.name.partition("/")[2].startswith(only):
            yield member


def ran(*command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    try:
        subprocess.run(command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=True)
    except OSError as error:
        raise NotToBeHad(str(error)) from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        raise NotToBeHad(f"{command[0]}: {said[-1] if said else error}") from error
