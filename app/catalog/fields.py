"""The fields by which a listing can be ordered and filtered, and the values they compare with."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from ..errors import InvalidRequest
from .rows import MAX_INTEGER, to_microseconds

Kind = Literal["integer", "number", "text", "time"]
Source = Literal["checkpoints", "metrics", "tags"]
Comparable: TypeAlias = int | float | str

_KINDS: dict[str, Kind] = {
    "version": "integer",
    "epoch": "integer",
    "step": "integer",
    "loss": "number",
    "created_at": "time",
    "run": "text",
    "slot": "text",
    "bytes": "integer",
    "nonfinite_tensors": "integer",
}
_EXAMPLES: dict[Kind, str] = {
    "integer": "an integer of at most 64 bits",
    "number": "a finite number",
    "text": "text without NUL characters",
    "time": "a time such as 2026-05-09T07:35:25Z",
}
_NAMES = f"{', '.join(_KINDS)}, metric.NAME or tag.NAME"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a listing. ``text`` is its name in a request; ``name`` is the column, metric or tag."""

    text: str
    source: Source
    name: str
    kind: Kind

    @property
    def python_type(self) -> type[Comparable]:
        """The Python type of stored values; a time is stored in microseconds."""
        return {"integer": int, "number": float, "text": str, "time": int}[self.kind]

    @property
    def never_null(self) -> bool:
        return self.source == "checkpoints" and self.name in {"version", "created_at", "nbytes"}


def parse_field(text: str, *, code: str) -> Field:
    """Parse a field's name. Raises InvalidRequest with ``code``."""
    kind = _KINDS.get(text)
    if kind is not None:
        return Field(text, "checkpoints", "nbytes" if text == "bytes" else text, kind)
    prefix, _, name = text.partition(".")
    if prefix == "metric" and name and _is_text(name):
        # "metric.loss" is the checkpoint's own loss, as in "min:loss"
        return parse_field(name, code=code) if name == "loss" else Field(text, "metrics", name, "number")
    if prefix == "tag" and name and _is_text(name):
        return Field(text, "tags", name, "text")
    raise InvalidRequest(f"there is no field {text!r}: use {_NAMES}", code=code)


def parse_value(field: Field, text: str) -> Comparable:
    """Convert ``text`` to the type that ``field`` compares. Raises InvalidRequest, code ``bad-filter``."""
    value: Comparable | None
    try:
        match field.kind:
            case "integer":
                value = int(text)
                value = value if abs(value) <= MAX_INTEGER else None
            case "number":
                value = float(text)
                value = value if math.isfinite(value) else None
            case "time":
                time = datetime.fromisoformat(text)
                value = to_microseconds(time if time.tzinfo else time.replace(tzinfo=UTC))
            case "text":
                value = text if _is_text(text) else None
    except ValueError:
        value = None
    if value is None:
        raise InvalidRequest(
            f"{text!r} cannot be compared with {field.text}: use {_EXAMPLES[field.kind]}", code="bad-filter"
        )
    return value


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
