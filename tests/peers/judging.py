"""Results of reads, values or errors, and the differences between them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from tests.differential.equality import equal

DEEP = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison: its outcome is ``equal``, ``refused``, ``different`` or ``unjudged``, and why."""

    way: str
    outcome: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """A value, or the error that came in its place."""

    value: Any = None
    error: BaseException | None = None

    def __str__(self) -> str:
        if self.error is None:
            return f"gives {type(self.value).__name__}"
        return f"raises {type(self.error).__name__}: {str(self.error).splitlines()[0][:200] if str(self.error) else ''}"


def attempt(action: Callable[[], Any]) -> Read:
    try:
        return Read(action())
    except Exception as error:  # noqa: BLE001 - a foreign suite may raise anything
        return Read(error=error)


def judge(way: str, stock: Read, served: Read, again: Callable[[], Any]) -> Finding:
    """Compare a read of ours with stock torch's; ``again`` repeats the latter.

    Where two reads of stock torch do not compare equal either, the objects cannot be compared: unjudged.
    """
    if stock.error is not None or served.error is not None:
        if type(stock.error) is type(served.error):
            return Finding(way, "equal")
        return Finding(way, "different", f"stock torch {stock}; Stateroom's {served}")
    with _disable_current_modes():  # a test may be in the middle of a FakeTensorMode
        if same(stock.value, served.value):
            return Finding(way, "equal")
        if not same(stock.value, again()):
            return Finding(way, "unjudged", f"two reads of stock torch compare unequal: {type(stock.value).__name__}")
        return Finding(way, "different", where(stock.value, served.value))


def same(one: Any, other: Any) -> bool:
    """Equal; objects that cannot even be asked are not."""
    try:
        return equal(one, other)
    except Exception:  # noqa: BLE001 - an object of a foreign suite may raise anything when it is compared
        return False


def where(one: Any, other: Any, path: str = "", depth: int = 0) -> str:
    """The first place at which two trees differ, in words."""
    place = path or "the whole"
    if type(one) is not type(other):
        return f"{place}: {type(one).__name__}, and {type(other).__name__}"
    if depth < DEEP and isinstance(one, Mapping | list | tuple):
        mapping = isinstance(one, Mapping)
        keys, others = (list(one), list(other)) if mapping else (range(len(one)), range(len(other)))
        if list(map(str, keys)) != list(map(str, others)):
            return f"{place}: {str(list(keys))[:200]}, and {str(list(others))[:200]}"
        for key, its in zip(keys, others, strict=True):
            if not same(one[key], other[its]):
                return where(one[key], other[its], f"{path}.{key}" if path else str(key), depth + 1)
        return f"{place}: what is shared in it, or its attributes"
    return f"{place}: {described(one)}, and {described(other)}"


def described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        parts = [type(value).__name__, value.dtype, tuple(value.shape), value.device, value.layout]
        if value.layout is torch.strided and not value.is_nested:
            parts += [f"strides {value.stride()}", f"offset {value.storage_offset()}"]
        return " ".join(map(str, parts))
    return f"{type(value).__name__} {str(value)[:80]!r}"
