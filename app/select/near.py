"""Near misses: the names a user may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

LIMIT = 3
MAX_LENGTH = 150
CONSIDERED = 2_000
"""Names and prefixes that are compared: an error message is not worth comparing with 400,000 keys."""


def near(wanted: str, names: Iterable[str], limit: int = LIMIT) -> tuple[str, ...]:
    """At most ``limit`` of ``names`` that come close to ``wanted``, the closest first; case does not count.

    A dotted name also comes close by a prefix of it: ``conv1`` is near ``conv1.weight``.
    """
    by_text: dict[str, str] = {}
    for name in islice((name for name in names if len(name) <= MAX_LENGTH), CONSIDERED):
        text = name.casefold()
        by_text.setdefault(text, name)
        while "." in text and len(by_text) < CONSIDERED:
            text = text.rpartition(".")[0]
            by_text.setdefault(text, name)
    close = get_close_matches(wanted[:MAX_LENGTH].casefold().rstrip("."), by_text, n=4 * limit)
    return tuple(dict.fromkeys(by_text[text] for text in close))[:limit]
