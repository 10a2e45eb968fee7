"""The version of this server, as installed."""

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version


@cache
def server_version() -> str:
    """Return the version of the installed server; ``0.0.0`` where it runs from the repository and is not installed."""
    try:
        return installed_version("stateroom-server")
    except PackageNotFoundError:
        return "0.0.0"
