"""Values of the command line's arguments, and exit codes of errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from .._errors import (
    InvalidRequest,
    NoKeysMatched,
    NotFound,
    ServerUnavailable,
    StateroomError,
    Unauthorized,
    UnknownComponent,
)

FAILED, WRONG_USAGE, NOT_FOUND, UNAUTHORIZED, UNAVAILABLE = 1, 2, 3, 4, 5
TORCH_SUFFIXES = {".pt", ".pth", ".ckpt", ".tar", ".bin"}
INTERRUPTED = 130  # as shells report a command ended by Ctrl+C
TERMINATED = 143

EXIT_CODES: tuple[tuple[type[StateroomError], int], ...] = (
    (NotFound, NOT_FOUND),
    (UnknownComponent, NOT_FOUND),
    (NoKeysMatched, NOT_FOUND),
    (InvalidRequest, WRONG_USAGE),
    (Unauthorized, UNAUTHORIZED),
    (ServerUnavailable, UNAVAILABLE),
)
"""Exit codes by error: the first match counts, and FAILED is for all others."""


def exit_code(error: Exception) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), FAILED)


@dataclass(frozen=True)
class Target:
    """A checkpoint ``namespace/name@ref``; without a ref it is ``latest``."""

    model: str
    ref: str

    def __str__(self) -> str:
        return f"{self.model}@{self.ref}"


def target_of(text: str) -> Target:
    """Parse ``namespace/name@ref``. Raises BadParameter."""
    model, at, ref = text.partition("@")
    if at and not ref:
        raise typer.BadParameter(f"{text!r} has no ref after the @: write namespace/name@REF", param_hint="MODEL")
    return Target(model, ref or "latest")


def model_of(text: str) -> str:
    """Return a model's name, where no ref is allowed. Raises BadParameter."""
    if "@" in text:
        raise typer.BadParameter(f"{text!r} is a checkpoint; give a model, as in namespace/name", param_hint="MODEL")
    return text


def doomed_of(text: str) -> Target | str:
    """Parse the name of what to delete: a checkpoint by its number, because other refs may move; or a model, without
    ``@``.

    Raises BadParameter.
    """
    target = target_of(text)
    if "@" not in text:
        return target.model
    if re.fullmatch(r"v?[0-9]+", target.ref) is None:
        hint = "give a version number, as in namespace/name@12: other refs may move"
        raise typer.BadParameter(f"{text!r}: {hint}", param_hint="MODEL[@VERSION]")
    return target


def alias_change(
    name: str | None, ref: str | None, *, history: bool, rollback: bool, remove: bool, protect: bool | None
) -> str | None:
    """Return the one thing to be done with an alias: ``move``, ``history``, ``rollback``, ``rm`` or ``protect``; None
    to show it. Raises BadParameter for several.
    """
    asked = {
        "move": ref is not None,
        "history": history,
        "rollback": rollback,
        "rm": remove,
        "protect": protect is not None,
    }
    changes = [change for change, is_asked in asked.items() if is_asked]
    if len(changes) > 1:
        raise typer.BadParameter("give one of REF, --history, --rollback, --rm and --protect", param_hint="alias")
    if changes and name is None:
        raise typer.BadParameter("which alias? write stateroom alias MODEL NAME ...", param_hint="NAME")
    return changes[0] if changes else None


def check_at_most_one(**options: str | None) -> None:
    """Raise BadParameter if several of ``options`` are given."""
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise typer.BadParameter(f"give one of {', '.join(given)}", param_hint=given[1])


def expected_of(expect: str | None, note: str | None, change: str | None) -> dict[str, str | None]:
    """Return the ``expect`` of a change of an alias, if it is given. Raises BadParameter where it has no meaning."""
    if expect is not None and change not in {"move", "rollback", "rm"}:
        raise typer.BadParameter("only a move, --rollback and --rm expect a version", param_hint="--expect")
    if note is not None and change != "move":
        raise typer.BadParameter("only a move has a note", param_hint="--note")
    if expect is None:
        return {}
    return {"expect": None if expect == "none" else expect}


def quotas_of(size: str | None, checkpoints: str | None) -> dict[str, Any]:
    """Return the quotas that are given, for ``Client.set_quota``; ``none`` removes one. Raises BadParameter."""
    quotas: dict[str, Any] = {}
    if size is not None:
        quotas["bytes"] = None if size == "none" else size
    if checkpoints is not None:
        if not (checkpoints == "none" or (checkpoints.isascii() and checkpoints.isdigit())):
            raise typer.BadParameter(f"{checkpoints!r} is not a number, or none", param_hint="--quota-checkpoints")
        quotas["checkpoints"] = None if checkpoints == "none" else int(checkpoints)
    return quotas


def pairs_of(texts: Iterable[str] | None, option: str) -> dict[str, str]:
    """Parse ``NAME=VALUE`` options. Raises BadParameter for any other text, and for a name that is given twice."""
    pairs: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (equals and name):
            raise typer.BadParameter(f"{text!r} is not of the form NAME=VALUE", param_hint=option)
        if name in pairs:
            raise typer.BadParameter(f"{name} is given twice; give it once", param_hint=option)
        pairs[name] = value
    return pairs


def bests_of(texts: Iterable[str] | None) -> list[tuple[str, int]] | None:
    """Parse ``max:NAME`` and ``max:NAME=2`` options. Raises BadParameter."""
    bests = []
    for text in texts or ():
        by, equals, count = text.rpartition("=")
        if equals and not count.isdecimal():
            raise typer.BadParameter(f"{text!r} is not of the form max:NAME=N", param_hint="--keep-best")
        bests.append((by, int(count)) if equals else (text, 1))
    return bests or None


def numbers_of(texts: Iterable[str] | None, option: str) -> dict[str, float]:
    """Parse ``NAME=NUMBER`` options. Raises BadParameter."""
    try:
        return {name: float(value) for name, value in pairs_of(texts, option).items()}
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size


def says_safetensors(path: Path) -> bool:
    return path.suffix.lower() == ".safetensors"


def check_name(path: Path, kind: str) -> None:
    """Raise BadParameter if the file's name ends in the suffix of another format."""
    if says_safetensors(path) and kind != "safetensors":
        raise typer.BadParameter(
            f"{path.name} ends in .safetensors, but the download is a torch file: use a name that ends in .pt, or "
            "download a state_dict with --format safetensors",
            param_hint="--output",
        )
    if kind == "safetensors" and path.suffix.lower() in TORCH_SUFFIXES:
        raise typer.BadParameter(
            f"{path.name} is the name of a torch file, but the download is a safetensors file: use a name that ends in "
            ".safetensors, or download a torch file with --device cpu or --format pt",
            param_hint="--output",
        )


def rows_of(text: str | None) -> slice | None:
    """Parse ``START:STOP``. Raises BadParameter."""
    if text is None:
        return None
    found = re.fullmatch(r"(-?[0-9]{1,18})?:(-?[0-9]{1,18})?", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not of the form START:STOP, as in 0:10 or -5:", param_hint="--rows")
    return slice(*(None if bound is None else int(bound) for bound in found.groups()))


def shard_of(text: str | None) -> tuple[int, int] | None:
    """Parse ``NUMBER/COUNT``. Raises BadParameter."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not of the form NUMBER/COUNT, as in 0/8", param_hint="--shard")
    return int(found[1]), int(found[2])


def renames_of(texts: Iterable[str] | None) -> list[tuple[str, str]]:
    """Parse ``OLD=>NEW`` options. Raises BadParameter."""
    renames = []
    for text in texts or ():
        old, arrow, new = text.partition("=>")
        if not arrow:
            raise typer.BadParameter(f"{text!r} is not of the form OLD=>NEW", param_hint="--rename")
        renames.append((old, new))
    return renames
