"""The job of the child process that merges, as JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..sandbox.streaming import Child
from ..values.dtype import DTYPES, DType
from .recipe import Recipe

CHILD = f"{__package__}.compute"
"""The module that the child process runs. It also does the jobs of ``inside``."""


@dataclass(frozen=True, slots=True)
class Part:
    """``count`` elements of a tensor. ``dtypes`` are those of the sources, in order, and ``to`` that of the result."""

    count: int
    dtypes: tuple[DType, ...]
    to: DType
    recipe: Recipe


def encode(parts: Sequence[Part]) -> bytes:
    return json.dumps({"merge": list(map(_to_json, parts))}).encode()


def decode(data: bytes) -> list[Part] | None:
    """Return the parts to merge; None for a job of ``inside``."""
    fields = json.loads(data)
    return list(map(_from_json, fields["merge"])) if "merge" in fields else None


def merge(child: Child, parts: Sequence[Part], messages: Iterable[memoryview]) -> memoryview:
    """Return the elements of ``parts``, one after another. ``messages`` are the elements of the first source for all
    parts, then those of the next one; each message is of one part.
    """
    return memoryview(child.ask(encode(parts), messages))


def _to_json(part: Part) -> list[Any]:
    names = [dtype.name for dtype in part.dtypes]
    dtypes = names[0] if len(set(names)) == 1 else names
    recipe = part.recipe
    steps = recipe.steps[0] if len(set(recipe.steps)) == 1 else recipe.steps
    return [part.count, len(names), dtypes, part.to.name, steps, recipe.divisor]


def _from_json(fields: list[Any]) -> Part:
    count, sources, dtypes, to, steps, divisor = fields
    names = [dtypes] * sources if isinstance(dtypes, str) else dtypes
    pairs = steps if isinstance(steps[0], list) else [steps] * sources
    recipe = Recipe(tuple((keep, add) for keep, add in pairs), divisor)
    return Part(count, tuple(DTYPES[name] for name in names), DTYPES[to], recipe)
