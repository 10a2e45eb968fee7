"""A progress bar on the terminal, for transfers that take a while."""

from __future__ import annotations

import sys
import time
from typing import Callable, Optional, TextIO, Union

from ._printable import printable

Progress = Callable[[str, int, Optional[int]], None]
"""Called as ``progress(label, done, total)``: bytes so far, and all bytes if known."""

ProgressOption = Union[None, bool, Progress]

PATIENCE = 0.5  # seconds before the line appears: most transfers are over by then
REDRAW = 0.1


class Bar:
    """Draws the progress of one transfer on a line of ``stream``, ended on completion. ``clock`` gives seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._started = clock()
        self._due = self._started + PATIENCE
        self._drawn = False

    def __call__(self, label: str, done: int, total: int | None) -> None:
        now = self._clock()
        complete = done == total
        if now < self._due and not (complete and self._drawn):
            return
        self._due, self._drawn = now + REDRAW, not complete
        self._stream.write(f"\r{line(label, done, total, now - self._started)}\x1b[K" + ("\n" if complete else ""))
        self._stream.flush()


def line(label: str, done: int, total: int | None, seconds: float) -> str:
    """Return the line to draw: ``model.pt [===== ] 512.0 MB of 1.0 GB, 256.0 MB/s``."""
    label = printable(label)
    rate = f"{size_text(done / seconds)}/s" if seconds > 0 else ""
    if not total:
        return f"{label} {size_text(done)}, {rate}"
    bar = "=" * (20 * done // total)
    return f"{label} [{bar:<20}] {size_text(done)} of {size_text(total)}, {rate}"


def size_text(size: float) -> str:
    """Return ``1536000`` as ``1.5 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def progress_of(option: ProgressOption) -> Progress | None:
    """Return the callback of one transfer: for None a bar if there is a terminal, for True always a bar, for False
    none.
    """
    if callable(option):
        return option
    if option or (option is None and sys.stderr.isatty()):
        return Bar(sys.stderr)
    return None
