"""Sizes of tests: small for ``make test`` after every change, full with ``make stress``."""

import os
from collections.abc import Callable
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


def examples(at_length: int, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Try a property with ``at_length`` examples with ``make stress``, and with a third of them with ``make test``."""
    limits = settings(max_examples=measure(at_length // 3, at_length), **options)
    return lambda test: long(limits(test))
