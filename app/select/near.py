"""Near misses: the names a user may have meant."""

from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches
from heapq import nlargest
from itertools import islice

LIMIT = 3
MAX_LENGTH = 150
CONSIDERED = 2_000
"""Names and prefixes that are considered: an error message is not worth a comparison with 400,000 keys."""

COMPARED = 30
"""Considered names that are compared in full, by most letters in common: a comparison can take 5 ms."""


def near(wanted: str, names: Iterable[str], limit: int = LIMIT) -> tuple[str, ...]:
    """At most ``limit`` of ``names`` that come close to ``wanted``, the closest first; case does not count.

    A dotted name is also close if one of its prefixes is: ``conv1`` is near ``conv1.weight``.
    """
    by_text: dict[str, str] = {}
    for name in islice((name for name in names if len(name) <= MAX_LENGTH), CONSIDERED):
        text = name.casefold()
        by_text.setdefault(text, name)
        while "." in text and len(by_text) < CONSIDERED:
            text = text.rpartition(".")[0]
            by_text.setdefault(text, name)
    text = wanted[:MAX_LENGTH].casefold().rstrip(".")
    letters = Counter(text)
    likely = nlargest(
        COMPARED, by_text, lambda other: (letters & Counter(other)).total() / (len(text) + len(other) + 1)
    )
    close = get_close_matches(text, likely, n=4 * limit)
    return tuple(dict.fromkeys(by_text[text] for text in close))[:limit]
