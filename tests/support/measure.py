"""Sizes of tests: small for ``make test`` after every change, full with ``make stress``."""

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest
from hypothesis import settings

T = TypeVar("T")

IS_LONG = bool(os.environ.get("LONG_TESTS"))

long = pytest.mark.long
"""Marks a test that does more with ``make stress``."""

only_long = (
    pytest.mark.long,
    pytest.mark.skipif(not IS_LONG, reason="takes half a minute: make stress runs it"),
)


def measure(usual: T, at_length: T) -> T:
    return at_length if IS_LONG else usual


def some(cases: Iterable[T], one_in: int) -> list[T]:
    """Return one case in ``one_in``, the first among them, or all of them with ``make stress``."""
    return list(cases)[:: measure(one_in, 1)]


SHARE_OF_EXAMPLES = 5
"""A property test tries one in so many of its examples with ``make test``."""


def examples(at_length: int, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Try a property with ``at_length`` examples with ``make stress``, and with a fifth of them with ``make test``."""
    return settings(max_examples=measure(at_length // SHARE_OF_EXAMPLES, at_length), **options)
