"""Sizes in bytes, written as people write them."""

from __future__ import annotations

from ._errors import InvalidRequest

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def bytes_of(name: str, size: int | str) -> int:
    """Parse a number of bytes, or a text such as ``20 GB``. Raises InvalidRequest, which calls the size ``name``."""
    text = str(size).strip().upper()
    number = text.rstrip("BKMGT ")
    unit = text[len(number) :].strip()
    try:
        value = int(number) * UNITS[unit] if number.isascii() and number.isdigit() else float(number) * UNITS[unit]
        if 0 <= value < 2**63:
            return int(value)
    except (KeyError, ValueError):
        pass
    raise InvalidRequest(f"{name}={size!r} is not a size; give a number of bytes, or text such as '500 MB' or '20 GB'")
