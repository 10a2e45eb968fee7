"""The configuration file: settings by their names, in TOML."""

import difflib
import stat
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import StateroomError


def read_config_file(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Read the settings in the file at ``path``; a list of texts is joined with commas, as in a variable.

    Raises StateroomError, with a line for each mistake, for a file that cannot be read or has a name that is not
    ``known``.
    """
    try:
        given = tomllib.loads(path.read_text())
    except OSError as error:
        raise StateroomError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # TOML's, and those of UTF-8
        raise StateroomError(f"the configuration file {path} is not valid TOML: {error}") from error
    if unknown := given.keys() - set(known):
        raise StateroomError("\n".join(_unknown(path, name, known) for name in sorted(unknown)))
    if tables := [name for name, value in given.items() if isinstance(value, dict)]:
        raise StateroomError(f"{path}: {tables[0]} is a table; settings stand at the top level: {tables[0]} = ...")
    return {name: _as_text(value) for name, value in given.items()}


def exposed_secret(path: Path) -> str | None:
    """Return a warning if the valid file at ``path`` holds a secret and every user of the machine can read it."""
    if not path.is_file() or not path.stat().st_mode & stat.S_IROTH:
        return None
    given = tomllib.loads(path.read_text())
    secrets = {
        "server_token": given.get("server_token"),
        "database_url": urlsplit(str(given.get("database_url", ""))).password,
    }
    held = [name for name, secret in secrets.items() if secret]
    if not held:
        return None
    return f"{path} holds {' and '.join(held)}, and every user of this machine can read it: chmod o-r {path}"


def _unknown(path: Path, name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name[:100], sorted(known), n=1)
    return f"{path}: {name!r} is not a setting" + (f"; did you mean {near[0]}?" if near else "")


def _as_text(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value
