"""Reports of the keys that were loaded into a target, and of those that were not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.filesize import decimal

from ._errors import understood
from ._html import html_table
from ._printable import printable

SHOWN = 5


@dataclass(frozen=True)
class Mismatch:
    """A key whose shape in the checkpoint (``have``) differs from that in the target (``want``)."""

    key: str
    have: tuple[int, ...]
    want: tuple[int, ...]

    def __str__(self) -> str:
        return f"{printable(self.key)} ({list(self.have)} there, {list(self.want)} here)"


@dataclass(frozen=True)
class Report:
    """The keys of ``checkpoint`` (``vision/resnet50@12``) that were loaded, and those that were not.

    ``matched_keys`` were loaded; ``missing_keys`` are in the target only, ``unexpected_keys`` in the checkpoint only;
    ``mismatched_keys`` have another shape. Of ``resized_keys``, which have another shape too, the corner that both have
    was loaded. ``cast_keys`` are the matched keys that were converted to the target's dtype. ``skipped_keys`` are
    sparse and quantized tensors of the target, which only ``load_into`` with ``strict`` loads. ``bytes`` is the size of
    the matched dense tensors, and of the corners, in the checkpoint. ``prefix`` is the wrapper prefix (``module.``,
    ``_orig_mod.``) that was stripped from the checkpoint's keys, or added to them because only the target's have it;
    ``near`` lists selections that would make most keys match (``strip_prefix=model.``). ``str()`` of it is for people.
    """

    checkpoint: str
    matched_keys: tuple[str, ...] = ()
    missing_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()
    mismatched_keys: tuple[Mismatch, ...] = ()
    cast_keys: tuple[str, ...] = ()
    skipped_keys: tuple[str, ...] = ()
    bytes: int = 0
    prefix: str | None = None
    near: tuple[str, ...] = ()
    resized_keys: tuple[Mismatch, ...] = ()

    def __str__(self) -> str:
        loaded = len(self.matched_keys) + len(self.resized_keys)
        wanted = loaded + sum(map(len, (self.missing_keys, self.mismatched_keys, self.skipped_keys)))
        lines = [f"{printable(self.checkpoint)}: {loaded} of {wanted} keys loaded, {decimal(self.bytes)}"]
        for label, keys in (
            ("missing", self.missing_keys),
            ("unexpected", self.unexpected_keys),
            ("mismatched", self.mismatched_keys),
            ("resized", self.resized_keys),
            ("cast", self.cast_keys),
            ("skipped", self.skipped_keys),
        ):
            if keys:
                more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
                lines.append(f"  {label}: {', '.join(map(printable, keys[:SHOWN]))}{more}")
        if self.prefix:
            lines.append(f"  prefix: {printable(self.prefix)}, which only one side's keys have")
        lines += [f"  near: {printable(hint)}" for hint in self.near]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        kinds = {name: getattr(self, f"{name}_keys") for name in _KINDS}
        rows = [
            (name, len(keys), ", ".join(map(str, keys[:SHOWN])) + (", ..." if keys[SHOWN:] else ""))
            for name, keys in kinds.items()
            if keys
        ]
        return html_table(str(self).partition("\n")[0], ("", "keys", ""), rows)


_KINDS = ("matched", "missing", "unexpected", "mismatched", "resized", "cast", "skipped")


@understood("a report")
def report_of(checkpoint: str, answer: Mapping[str, Any]) -> Report:
    """Parse the warmstart route's answer."""
    return Report(
        checkpoint=checkpoint,
        matched_keys=tuple(answer["matched_keys"]),
        missing_keys=tuple(answer["missing_keys"]),
        unexpected_keys=tuple(answer["unexpected_keys"]),
        mismatched_keys=_mismatches_of(answer["mismatched_keys"]),
        resized_keys=_mismatches_of(answer.get("resized_keys", ())),
        cast_keys=tuple(answer["cast_keys"]),
        bytes=answer["bytes"],
    )


def _mismatches_of(items: Iterable[Mapping[str, Any]]) -> tuple[Mismatch, ...]:
    return tuple(Mismatch(each["key"], tuple(each["have"]), tuple(each["want"])) for each in items)


def misfit(report: Report, *, strict: bool) -> str | None:
    """Return why ``load_state_dict`` would refuse, in its words; None if it would not."""
    reasons = []
    if strict and report.missing_keys:
        reasons.append(f"Missing key(s) in state_dict: {_quoted(report.missing_keys)}.")
    if strict and report.unexpected_keys:
        reasons.append(f"Unexpected key(s) in state_dict: {_quoted(report.unexpected_keys)}.")
    reasons += [
        f"size mismatch for {printable(each.key)}: copying a param with shape {list(each.have)} from checkpoint, "
        f"the shape in current model is {list(each.want)}."
        for each in report.mismatched_keys
    ]
    return "\n\t".join(reasons) or None


def _quoted(keys: tuple[str, ...]) -> str:
    return ", ".join(f'"{printable(key)}"' for key in keys)
