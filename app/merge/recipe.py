"""How the elements of several tensors become one. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InvalidRequest
from ..values.checkpoint import MergeMethod

MAX_SOURCES = 100
"""Most checkpoints of one merge."""

LARGEST_WEIGHT = 1e6

TOLERANCE = 1e-6
"""Distance from 1 up to which weights sum to 1."""

NEARLY_PARALLEL = 0.9995
"""Cosine of two tensors from which on their spherical interpolation is the linear one."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Elements of each source in turn are added to a result, which begins as 0: ``result * keep + element * add``, each
    product and each sum rounded. In the end the result is divided by ``divisor``. ``steps`` are pairs of keep and add.

    ``is_mean``: what is the same in all sources is the same in the result.
    """

    steps: tuple[tuple[float, float], ...]
    divisor: float = 1.0
    is_mean: bool = True

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight that each source has in the result."""
        weights: list[float] = []
        for keep, add in self.steps:
            weights = [*(weight * keep for weight in weights), add]
        return tuple(weight / self.divisor for weight in weights)


def recipe_of(
    method: MergeMethod, weights: Sequence[float | None], decay: float | None, *, normalize: bool | None
) -> Recipe:
    """Return the recipe of a merge; of a ``slerp``, that for parallel tensors. Raises InvalidRequest."""
    given = _given(weights)
    if (decay is None) == (method == "ema"):
        raise _wrong("method ema needs decay, between 0 and 1, and no other method takes it")
    if normalize is not None and method != "linear":
        raise _wrong("only method linear takes normalize: the weights of the others always sum to 1")
    if method == "ema":
        return _ema(decay or 0.0, len(weights), given)
    if method == "linear":
        return _linear(given, normalize)
    if method == "slerp" and len(weights) != 2:
        raise _wrong(f"method slerp takes two checkpoints, not {len(weights)}")
    if given is None and method == "average":
        return Recipe(((1.0, 1.0),) * len(weights), float(len(weights)))
    return Recipe(_adding(_normalized(given or [0.5, 0.5], method)))


def spherical(cosine: float | None, linear: Recipe) -> Recipe:
    """Return the recipe for two tensors of this ``cosine``, None where one of them is 0.

    The angle between them is divided as ``linear`` divides their distance. Source: Shoemake, "Animating rotation with
    quaternion curves", 1985.
    """
    if cosine is None or abs(cosine) > NEARLY_PARALLEL:
        return linear
    angle, t = math.acos(cosine), linear.weights[1]
    return Recipe(_adding([math.sin(part * angle) / math.sin(angle) for part in (1 - t, t)]))


def _given(weights: Sequence[float | None]) -> list[float] | None:
    given = [weight for weight in weights if weight is not None]
    if not given:
        return None
    if len(given) < len(weights):
        raise _wrong("some checkpoints have a weight and others have none: give all of them one, or none")
    for weight in given:
        if not abs(weight) <= LARGEST_WEIGHT:
            raise _wrong(f"a weight must be a number between -{LARGEST_WEIGHT:,.0f} and {LARGEST_WEIGHT:,.0f}")
    return given


def _ema(decay: float, count: int, given: list[float] | None) -> Recipe:
    if not 0 < decay < 1:
        raise _wrong("decay must be between 0 and 1, for example 0.9")
    if given is not None:
        raise _wrong("method ema computes the weights from decay: give none")
    return Recipe(((0.0, 1.0), *((decay, 1 - decay),) * (count - 1)))


def _linear(given: list[float] | None, normalize: bool | None) -> Recipe:
    if given is None:
        raise _wrong("method linear needs the weight of each checkpoint; method average needs none")
    total = math.fsum(given)
    if normalize:
        if abs(total) <= TOLERANCE:
            raise _wrong(f"the weights sum to {total:g}, which they cannot be divided by")
        return Recipe(_adding([weight / total for weight in given]))
    is_mean = abs(total - 1) <= TOLERANCE
    if not is_mean and normalize is None:
        raise _wrong(
            f"the weights sum to {total:g}, not to 1: give normalize=true to divide them by their sum, or "
            "normalize=false to use them as they are"
        )
    return Recipe(_adding(given), is_mean=is_mean)


def _normalized(weights: list[float], method: str) -> list[float]:
    total = math.fsum(weights)
    if min(weights) < 0 or total <= 0:
        raise _wrong(f"the weights of method {method} must be 0 or more, and one of them more; linear takes others")
    return [weight / total for weight in weights]


def _adding(weights: Sequence[float]) -> tuple[tuple[float, float], ...]:
    return tuple((1.0, weight) for weight in weights)


def _wrong(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, code="invalid-value")
