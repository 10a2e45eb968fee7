"""Byte ranges (RFC 9110, 14): Range and Content-Range."""

import re

from ...values.span import Span

_SPEC = re.compile(r"([0-9]*)[ \t]*-[ \t]*([0-9]*)")
_MOST_DIGITS = 18


class UnsatisfiableRange(Exception):
    """A well-formed range that lies outside the representation: 416."""


def _position(digits: str) -> int:
    """Parse a number of any length, capped at 10^18, because int() refuses to read thousands of digits."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS


def requested_span(header: str | None, size: int) -> Span | None:
    """Return the one range requested of ``size`` bytes, cut to them; None if all of them are to be sent.

    A header that is malformed, has another unit, or names several ranges is ignored, as the RFC allows.
    Raises UnsatisfiableRange.
    """
    unit, equals, ranges = (header or "").partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    specs = [spec for part in ranges.split(",") if (spec := part.strip(" \t"))]
    match = _SPEC.fullmatch(specs[0]) if len(specs) == 1 else None
    if match is None or match[1] == match[2] == "":
        return None
    first, last = match[1], match[2]
    if not first:
        suffix = _position(last)
        if suffix == 0:
            raise UnsatisfiableRange
        return Span(max(0, size - suffix), size) if size else None
    start = _position(first)
    if last and _position(last) < start:
        return None
    if start >= size:
        raise UnsatisfiableRange
    return Span(start, min(size, _position(last) + 1) if last else size)


def content_range(span: Span | None, size: int) -> str:
    """Return the value of Content-Range; without a span, the value for a 416."""
    return f"bytes */{size}" if span is None else f"bytes {span.start}-{span.end - 1}/{size}"
