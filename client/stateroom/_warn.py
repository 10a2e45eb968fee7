"""Warnings that point at the caller's line."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from pathlib import Path

from ._errors import StateroomWarning

_PACKAGE = str(Path(__file__).parent) + os.sep
_PASSED_THROUGH = (_PACKAGE, contextlib.__file__)


def warn(text: str) -> None:
    """Issue a StateroomWarning for the line outside this package that called into it."""
    level, frame = 1, sys._getframe(0)  # noqa: SLF001  as warnings itself finds frames
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PASSED_THROUGH):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, StateroomWarning, stacklevel=level)
