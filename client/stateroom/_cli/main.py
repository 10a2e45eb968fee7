"""The command line: ``stateroom push | pull | ls | show | alias | rm | restore | ... | serve``.

Results go to stdout; everything else goes to stderr, an error as one line. docs/client.md lists the exit codes.
"""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

import typer

from .._errors import StateroomError
from .._log import LOG
from .._printable import one_line
from . import aliases, archives, commands, events, files, inside, keeping, merging, namespaces, page, tokens  # noqa: F401  each adds its commands
from .application import cli
from .arguments import FAILED, INTERRUPTED, TERMINATED, exit_code

WrongUsage: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""The ClickException of click. Newer versions of typer bring a click of their own, under another name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    signal.signal(signal.SIGTERM, _end)
    LOG.addHandler(_Complaints())
    LOG.propagate = False
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: complain(str(message))
        try:
            run = typer.main.get_command(cli).main
            return int(run(arguments, prog_name="stateroom", standalone_mode=False) or 0)
        except (KeyboardInterrupt, typer.Abort):
            complain("interrupted")
            return INTERRUPTED
        except WrongUsage as error:
            command = "stateroom" if error.ctx is None else error.ctx.command_path
            complain(f"{error.format_message()} (see {command} --help)")
            return int(error.exit_code)
        except StateroomError as error:
            near = [name for name in error.near if name not in error.detail]
            complain(error.detail + (f"; close matches: {', '.join(near)}" if near else ""))
            return exit_code(error)
        except OSError as error:
            complain(str(error))
            return FAILED


class _Complaints(logging.Handler):
    """Prints the client's warnings, such as that it waits for a server: nothing else would until it gives up."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            complain(record.getMessage())


def complain(problem: str) -> None:
    """Print a problem as one line, whatever it contains, over the progress bar if one was interrupted."""
    line_start = "\r\x1b[K" if sys.stderr.isatty() else ""
    typer.echo(f"{line_start}stateroom: {one_line(problem)}", err=True)


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    """End as Ctrl+C does: unfinished files are removed."""
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
