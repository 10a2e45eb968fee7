"""The version of this server, as installed, and the commit that it was built from."""

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

_BUILD = Path(__file__).with_name("build.txt")
"""Written while a wheel or an image is built; a checkout has none."""


@cache
def server_version() -> str:
    """Return the version of the installed server; ``0.0.0`` where it runs from the repository and is not installed."""
    try:
        return installed_version("stateroom-server")
    except PackageNotFoundError:
        return "0.0.0"


@cache
def server_build() -> str | None:
    """Return the commit that the installed server was built from, as ``git describe`` names it; None if nobody said."""
    return (_BUILD.read_text().strip() or None) if _BUILD.is_file() else None
