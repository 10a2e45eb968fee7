"""Text that others wrote, made fit for a terminal, a log and a traceback.

Keys, components, globals, tags, runs, the names of models and files, and what a server says are chosen by whoever made
the checkpoint or runs the server. Whatever of them goes into an error, a warning, a log record or a ``str()`` passes
through here. Values that a program uses (``Report.missing_keys``, ``PartialLoadError.loaded``) stay as they are.
"""

from __future__ import annotations


def printable(text: object) -> str:
    """The text as one line, with escapes for all that would steer a terminal, turn the writing's direction, or begin a
    line: control characters, line breaks, marks of direction, lone surrogates.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def one_line(text: object) -> str:
    """The same of a text of several lines, which may end up as one."""
    return printable(" ".join(str(text).split()))


def with_lines(text: object) -> str:
    """The same of a text that has lines and tabs of our own: these stay."""
    return "".join(c if c in "\n\t" else printable(c) for c in str(text))
