"""Sizes of tests: small for ``make test`` after every change, full with ``make stress``."""

import os
from typing import TypeVar

import pytest

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
