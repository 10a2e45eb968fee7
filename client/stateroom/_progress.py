"""A progress bar on the terminal, for transfers that take a while."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Callable, Optional, TextIO, Union

from ._printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

Progress = Callable[[str, int, Optional[int]], None]
"""Called as ``progress(label, done, total)``: bytes so far, and all bytes if known."""

ProgressOption = Union[None, bool, Progress]

PATIENCE = 0.5  # seconds before the bar appears: most transfers are over by then
REDRAW = 0.1
WIDTH = 20  # characters of the bar itself
BESIDE = WIDTH + 40  # characters of all but the label; a longer line would be two
MIN_LABEL = 8


class Bar:
    """Draws the progress of one transfer on a line of ``stream``, ended on completion. ``clock`` gives seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._due = clock() + PATIENCE
        self._shown: tuple[RichProgress, TaskID] | None = None

    def __call__(self, label: str, done: int, total: int | None) -> None:
        now = self._clock()
        complete = done == total
        if now < self._due and not (complete and self._shown):
            return
        self._due = now + REDRAW
        if self._shown is None:
            self._shown = self._appeared(label, total)
        bar, task = self._shown
        bar.update(task, completed=done, total=total, refresh=True)
        if complete:
            bar.stop()

    def _appeared(self, label: str, total: int | None) -> tuple[RichProgress, TaskID]:
        from rich.console import Console  # noqa: PLC0415 - 60 ms, which most transfers need not wait for
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn  # noqa: PLC0415 - as above
        from rich.progress import Progress as RichProgress  # noqa: PLC0415 - as above

        # As text also in a notebook, which shows it: rich's own way there needs ipywidgets.
        console = Console(file=self._stream, force_terminal=True, force_jupyter=False)
        bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(WIDTH),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        bar.start()
        console.show_cursor()  # nobody stops the bar of a transfer that fails, and the terminal is the user's
        return bar, bar.add_task(printable(label)[: max(MIN_LABEL, console.width - BESIDE)], total=total)


def is_notebook() -> bool:
    """Tell whether this is the kernel of a notebook: its standard error is no terminal, and is shown to a person."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def progress_of(option: ProgressOption) -> Progress | None:
    """Return the callback of one transfer: for None a bar if there is a terminal or a notebook, for True always a bar,
    for False none.
    """
    if callable(option):
        return option
    if option or (option is None and (sys.stderr.isatty() or is_notebook())):
        return Bar(sys.stderr)
    return None
