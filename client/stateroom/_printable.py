"""Escape untrusted text for terminals, logs and tracebacks.

Keys, components, globals, tags, runs, the names of models and files, and the server's messages are chosen by whoever
made the checkpoint or runs the server. All of them pass through here before they go into an error, a warning, a log
record or a ``str()``. Values that a program uses (``Report.missing_keys``, ``PartialLoadError.loaded``) stay as they
are.
"""

from __future__ import annotations


def printable(text: object) -> str:
    """Return the text as one line, with escapes for all characters that would steer a terminal, change the writing
    direction, or begin a line: control characters, line breaks, direction marks, lone surrogates.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def one_line(text: object) -> str:
    """Join the lines of a text into one line, escaped like ``printable``."""
    return printable(" ".join(str(text).split()))


def with_lines(text: object) -> str:
    """Escape a text like ``printable``, but keep line breaks and tabs, which are our own."""
    return "".join(c if c in "\n\t" else printable(c) for c in str(text))
