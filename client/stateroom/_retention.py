"""Rules of retention: which checkpoints the server keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from ._errors import understood

KeepBest = Union[str, Mapping[str, int], Iterable[Any]]
"""``"max:val_acc"``, ``{"max:val_acc": 2}``, or a list of texts and of pairs such as ``("max:val_acc", 2)``."""

UNCHANGED: Any = ...
"""The default of the rules: those that the model has."""


@dataclass(frozen=True)
class RetentionPreview:
    """The effects that rules would have. ``trashed`` gives a reason for each version that would go to the trash,
    ``kept`` what would keep each other one; ``thinned`` are those that would lose their optimizers' bytes. The two
    sizes are in bytes: ``trash_bytes`` are freed once the trash is purged. Only the newest 10,000 of each kind are
    listed.
    """

    trashed: Mapping[int, str]
    thinned: tuple[int, ...]
    kept: Mapping[int, tuple[str, ...]]
    trash_bytes: int
    thinned_bytes: int
    warnings: tuple[str, ...] = field(default=())


@understood("a preview")
def preview_of(data: Mapping[str, Any]) -> RetentionPreview:
    """Parse the server's JSON."""
    return RetentionPreview(
        trashed={one["version"]: one["reason"] for one in data["trashed"]},
        thinned=tuple(data["thinned"]),
        kept={one["version"]: tuple(one["by"]) for one in data["kept"]},
        trash_bytes=data["trash_bytes"],
        thinned_bytes=data["thinned_bytes"],
        warnings=tuple(data["warnings"]),
    )


def given_rules(rules: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The rules in the server's JSON, without those that are not set."""
    return None if rules is None else {name: value for name, value in rules.items() if value is not None}


def rules_of(
    keep_last: int | None,
    keep_best: KeepBest | None,
    keep_every: Mapping[str, int] | None,
    keep_for: str | None,
    thin_after: int | None,
) -> dict[str, Any]:
    """The rules as JSON, without those that are None."""
    rules = {
        "keep_last": keep_last,
        "keep_best": None if keep_best is None else list(map(_best, _listed(keep_best))),
        "keep_every": None if keep_every is None else dict(keep_every),
        "keep_for": keep_for,
        "thin_after": None if thin_after is None else {"keep_last": thin_after},
    }
    return {name: value for name, value in rules.items() if value is not None}


def _listed(best: KeepBest) -> Iterable[Any]:
    if isinstance(best, str):
        return [best]
    return best.items() if isinstance(best, Mapping) else best


def _best(one: Any) -> dict[str, Any]:
    by, count = (one, 1) if isinstance(one, str) else one
    return {"by": by, "count": count}
