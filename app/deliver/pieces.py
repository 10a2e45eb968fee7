"""Pieces of a window, large enough to send."""

from collections.abc import Iterable

SMALL = 64 * 1024
"""Bytes below which a piece is joined with its neighbours: a send costs more than copying this many."""


def joined(views: Iterable[memoryview]) -> list[memoryview]:
    """Copy each run of small pieces into one piece."""
    pieces: list[memoryview] = []
    small: list[memoryview] = []
    for view in views:
        if len(view) < SMALL:
            small.append(view)
            continue
        if small:
            pieces.append(memoryview(b"".join(small)))
            small = []
        pieces.append(view)
    if small:
        pieces.append(memoryview(b"".join(small)))
    return pieces
