"""The line in which a person filters checkpoints: ``loss<0.5 epoch >= 3 run="my run"``."""

import re
from collections.abc import Iterator

from ...catalog.listing import Filter
from ...errors import InvalidRequest

_OPERATORS = {"=": "eq", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_FIELDS = frozenset({"version", "epoch", "step", "loss", "created_at", "run", "bytes"})
_OPERATOR = re.compile(r"[<>]=|[<>=]")


def parse_filters(text: str) -> tuple[Filter, ...]:
    """Parse the line. A name that is no field is a metric's. Raises InvalidRequest, code ``bad-filter``."""
    return tuple(_terms(text.strip()))


def _terms(text: str) -> Iterator[Filter]:
    rest = text
    while rest:
        match = _OPERATOR.search(rest)
        name = "" if match is None else rest[: match.start()].rstrip()
        if match is None or not name or '"' in name or len(name.split()) > 1:
            raise _wrong(rest)
        value, after = _value(rest, match.end())
        known = name in _FIELDS or name.startswith(("metric.", "tag."))
        yield Filter(name if known else f"metric.{name}", _OPERATORS[match[0]], value)
        rest = after.lstrip()


def _value(text: str, start: int) -> tuple[str, str]:
    """Return the value at the start of ``text[start:]``, which may be in quotes, and the text after it."""
    rest = text[start:].lstrip()
    if rest.startswith('"'):
        value, quote, after = rest[1:].partition('"')
        if not quote or (after and not after[0].isspace()):
            raise _wrong(text)
        return value, after
    value, *after_it = rest.split(None, 1)[:2] or [""]
    if not value or '"' in value or value.startswith("="):
        raise _wrong(text)
    return value, "".join(after_it)


def _wrong(text: str) -> InvalidRequest:
    return InvalidRequest(
        f'{text[:40]!r} is not a filter: write a field, an operator and a value, such as loss<0.5 or run="my run"',
        code="bad-filter",
    )
