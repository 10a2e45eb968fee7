"""Large JSON documents, read and written a slice at a time.

A call of ``json`` holds the interpreter until it returns: 30 MB of text take 0.1 s, in which no other thread runs.
"""

import codecs
import json
from collections.abc import Iterable, Sequence
from typing import Any

from .slices import slices

BYTES = 1024 * 1024
"""Bytes of UTF-8 that are decoded in one call. Halves of surrogate pairs are decoded at 11 MB a second."""


def read_json(data: bytes, *, gives_way: bool = True) -> Any:
    """Parse a document, which may hold halves of surrogate pairs. If it ``gives_way``, each integer lets other threads
    run, which takes a fifth longer.
    """
    return json.loads(decode_text(data), parse_int=_integer if gives_way else None)


def decode_text(data: bytes) -> str:
    """Decode UTF-8, halves of surrogate pairs included."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
    parts = [decoder.decode(data[start : start + BYTES]) for start in range(0, len(data), BYTES)]
    return "".join([*parts, decoder.decode(b"", final=True)])


def encode_text(text: str) -> bytes:
    """The inverse of ``decode_text``."""
    return text.encode("utf-8", "surrogatepass")


def joined(lists: Iterable[str]) -> str:
    """Join JSON lists, none of them empty, to one."""
    return f"[{','.join(each[1:-1] for each in lists)}]"


def to_lines(items: Sequence[Any], *, ascii_only: bool = False) -> str:
    """A long list as one JSON list a line. With ``ascii_only``, two halves of a surrogate pair become one character."""
    return "\n".join(json.dumps(some, separators=(",", ":"), ensure_ascii=ascii_only) for some in slices(items))


def from_lines(text: str) -> list[Any]:
    """The inverse of ``to_lines``."""
    items: list[Any] = []
    for line in filter(None, text.split("\n")):
        items += json.loads(line)
    return items


def _integer(text: str) -> int:
    """Parse an integer. Only a call of a function written in Python makes the interpreter look for waiting threads."""
    return int(text)
