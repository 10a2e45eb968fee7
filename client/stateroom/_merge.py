"""Merging of checkpoints: which ones, with which weights, and the request that asks the server for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, SupportsFloat, Union

from ._api import ModelApi
from ._checkpoint import Checkpoint
from ._errors import InvalidRequest
from ._query import Ref
from ._types import Params

Method = Literal["average", "linear", "slerp", "ema"]
Sources = Iterable[Union[Ref, tuple[Ref, SupportsFloat]]]
"""Refs, or pairs of a ref and a weight."""


@dataclass(frozen=True)
class Wanted:
    """The way to merge checkpoints. ``t`` stands for the weights ``1 - t`` and ``t`` of two checkpoints."""

    method: Method
    component: str | None
    decay: float | None
    t: float | None
    normalize: bool | None

    def body(self, checkpoints: list[Checkpoint], weights: list[float | None]) -> dict[str, Any]:
        if self.t is not None:
            if len(checkpoints) != 2 or any(weight is not None for weight in weights):
                raise InvalidRequest("t takes two checkpoints without weights: it stands for their weights 1 - t and t")
            weights = [1 - self.t, self.t]
        fields = {"component": self.component, "decay": self.decay, "normalize": self.normalize}
        return {
            "of": [{"ref": str(one), "weight": weight} for one, weight in zip(checkpoints, weights)],
            "method": self.method,
            **{name: value for name, value in fields.items() if value is not None},
        }


def sources_of(of: Sources, find: Callable[[Ref], Checkpoint]) -> tuple[list[Checkpoint], list[float | None]]:
    """Look up the checkpoints, and return them with their weights. Raises InvalidRequest for other values."""
    if isinstance(of, (str, int, Checkpoint)):
        raise InvalidRequest(
            f"of={of!r}: a list of checkpoints is expected, such as [11, 12] or [(11, 0.3), (12, 0.7)]"
        )
    pairs = [each if isinstance(each, tuple) else (each, None) for each in of]
    if any(len(pair) != 2 for pair in pairs):
        raise InvalidRequest("of: a checkpoint, or a pair of a checkpoint and its weight, is expected")
    return [find(ref) for ref, _ in pairs], [None if weight is None else float(weight) for _, weight in pairs]


def last_of(count: int, newest_first: Iterator[Checkpoint]) -> list[Checkpoint]:
    """Return the last ``count`` checkpoints that are no merges, the oldest of them first."""
    if count < 1:
        raise InvalidRequest(f"last={count}: at least 1 is expected")
    found = list(islice((each for each in newest_first if each.merge is None), count))
    if not found:
        raise InvalidRequest("there is no checkpoint to merge")
    return found[::-1]


def merge(
    api: ModelApi, wanted: Wanted, checkpoints: list[Checkpoint], weights: list[float | None], params: Params, key: str
) -> Checkpoint:
    """Have the server merge ``checkpoints``."""
    size = sum(each.bytes for each in checkpoints)
    return api.merge(wanted.body(checkpoints, weights), params, key=key, size=size)
