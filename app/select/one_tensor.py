"""A request for one tensor, or a part of it: rows, or one rank's shard."""

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..errors import SelectionError
from .query import parse_dtype

Region = tuple[tuple[int, int], ...]
"""A box of elements: its first index and its size in each dimension."""

FORMATS = ("safetensors", "raw")

_ROWS = re.compile(r"(-?[0-9]{1,18})?:(-?[0-9]{1,18})?")
_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class TensorQuery:
    """One tensor of a checkpoint, or a part of it.

    ``component`` is None for the component that has the key. ``rows`` are the bounds of a slice along the first
    dimension, None for an open end. ``shard`` is a number and a count: of the rows, the part along ``dim`` (0) that
    ``torch.chunk`` gives, or no elements if torch makes fewer chunks. ``dtype`` is that of StateDictQuery; ``raw`` is a
    file of the elements alone.
    """

    key: str
    component: str | None = None
    rows: tuple[int | None, int | None] | None = None
    dim: int | None = None
    shard: tuple[int, int] | None = None
    dtype: str | None = None
    format: Literal["safetensors", "raw"] = "safetensors"

    def __post_init__(self) -> None:
        if self.dtype is not None:
            object.__setattr__(self, "dtype", parse_dtype(self.dtype))
        if self.format not in FORMATS:
            raise SelectionError(
                f"there is no format {self.format[:100]!r} of one tensor; use {' or '.join(FORMATS)}",
                code="unknown-format",
                near=FORMATS,
            )
        if self.dim is not None and self.shard is None:
            raise SelectionError("dim needs shard: write dim=1&shard=0/8 for the first of 8 parts", code="bad-slice")

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "TensorQuery":
        """Invert ``to_json``."""
        for name in ("rows", "shard"):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def region(self, shape: tuple[int, ...]) -> Region:
        """Return the wanted part of a tensor of ``shape``. Raises SelectionError ``bad-slice``."""
        region = [(0, size) for size in shape]
        if self.rows is not None:
            region[0] = self._rows(self.rows, shape)
        if self.shard is not None:
            dim = self.dim or 0
            if not -len(shape) <= dim < len(shape):
                raise self._refusal(f"dim={dim}", f"is out of range for {len(shape)} dimensions", shape)
            start, size = region[dim]
            first, count = chunk(size, *self.shard)
            region[dim] = start + first, count
        return tuple(region)

    def _rows(self, rows: tuple[int | None, int | None], shape: tuple[int, ...]) -> tuple[int, int]:
        asked = "rows=" + ":".join("" if bound is None else str(bound) for bound in rows)
        if not shape:
            raise self._refusal(asked, "needs a dimension, and a scalar has none", shape)
        start, stop = (bound + shape[0] if bound is not None and bound < 0 else bound for bound in rows)
        start, stop = 0 if start is None else start, shape[0] if stop is None else stop
        if not (0 <= start <= shape[0] and 0 <= stop <= shape[0]):
            raise self._refusal(asked, f"is out of range for {shape[0]:,} rows", shape)
        return start, max(0, stop - start)

    def _refusal(self, asked: str, why: str, shape: tuple[int, ...]) -> SelectionError:
        return SelectionError(f"{asked} {why}: {self.key[:200]!r} has shape {list(shape)}", code="bad-slice")


def chunk(size: int, number: int, count: int) -> tuple[int, int]:
    """Return the first index and the size of chunk ``number`` of ``count``, as ``torch.chunk`` cuts ``size`` elements:
    each has the quotient, rounded up, and the last ones have what is left, perhaps nothing.
    """
    each = -(-size // count)
    start = min(number * each, size)
    return start, min(each, size - start)


def parse_rows(text: str) -> tuple[int | None, int | None]:
    """Parse ``START:STOP``, of which both may be left out or negative. Raises SelectionError ``bad-slice``."""
    found = _ROWS.fullmatch(text)
    if found is None:
        why = "has a step; only START:STOP is possible" if text.count(":") > 1 else "is not START:STOP"
        raise SelectionError(
            f"rows={text[:100]!r} {why}, as in rows=0:10, rows=-5: or rows=3:4 for one row", code="bad-slice"
        )
    start, stop = (None if bound is None else int(bound) for bound in found.groups())
    return start, stop


def parse_shard(text: str) -> tuple[int, int]:
    """Parse ``NUMBER/COUNT``, with numbers from 0 on. Raises SelectionError ``bad-slice``."""
    found = _SHARD.fullmatch(text)
    number, count = (0, 0) if found is None else (int(found[1]), int(found[2]))
    if number >= count:
        raise SelectionError(
            f"shard={text[:100]!r} is not NUMBER/COUNT with numbers from 0 on: the first of 8 shards is shard=0/8, the "
            "last is shard=7/8",
            code="bad-slice",
        )
    return number, count
