"""Which keys of a component are picked and what they are then called, in the order the contract fixes."""

import re
from collections.abc import Sequence
from typing import TypeAlias

from ..errors import SelectionError
from .names import Names
from .near import near
from .patterns import REGEX, PatternSet
from .query import StateDictQuery

MAX_KEY_LENGTH = 4_096
"""Characters in a new name: no reader of ours takes longer ones."""

Selected: TypeAlias = tuple[tuple[int, str], ...]
"""Positions in what was given, ascending, each with its new name."""


def select_keys(keys: Sequence[str], query: StateDictQuery) -> Selected:
    """The picked keys of a state_dict.

    Raises SelectionError ``no-keys-matched``, ``duplicate-key``, ``key-too-long``, ``bad-pattern`` or ``bad-rename``.
    """
    names = Names(query)
    stripped = [names.strip(key) for key in keys]
    selected = tuple((i, names.rename(stripped[i])) for i in _filter(stripped, query))
    _check(keys, selected)
    return selected


def select_leaves(keys: Sequence[str], query: StateDictQuery) -> tuple[int, ...]:
    """The picked leaves of a tree (an optimizer, the root's rest), by position; ``keys`` are their joined paths.

    Raises SelectionError ``no-keys-matched``, ``bad-pattern``, or ``not-a-state-dict`` where the query renames.
    """
    if query.renames:
        raise SelectionError(
            "strip_prefix, rename and add_prefix work on the keys of a state_dict; this component is a tree of values",
            code="not-a-state-dict",
        )
    return tuple(_filter(keys, query))


def _filter(keys: Sequence[str], query: StateDictQuery) -> Sequence[int]:
    picked: Sequence[int] = range(len(keys))
    if query.include:
        include = PatternSet(query.include)
        picked = [i for i in picked if include.matches(keys[i])]
    if query.exclude:
        exclude = PatternSet(query.exclude)
        picked = [i for i in picked if not exclude.matches(keys[i])]
    if not picked and (keys or query.include):
        raise SelectionError(
            f"none of the {len(keys):,} keys is picked by {_asked(query)}",
            code="no-keys-matched",
            near=_near(keys, query),
        )
    return picked


def _check(keys: Sequence[str], selected: Selected) -> None:
    first: dict[str, int] = {}
    for i, new in selected:
        if len(new) > MAX_KEY_LENGTH:
            raise SelectionError(
                f"{keys[i]!r} becomes a key of {len(new):,} characters; at most {MAX_KEY_LENGTH:,}", code="key-too-long"
            )
        if (other := first.setdefault(new, i)) != i:
            raise SelectionError(
                f"{keys[other]!r} and {keys[i]!r} would both be called {new!r}", code="duplicate-key", near=(new,)
            )


def _asked(query: StateDictQuery) -> str:
    words = [f"include={pattern}" for pattern in query.include] + [f"exclude={pattern}" for pattern in query.exclude]
    return ", ".join(words[:5]) + (" ..." if len(words) > 5 else "")


def _near(keys: Sequence[str], query: StateDictQuery) -> tuple[str, ...]:
    """Keys that come close to the text of the include patterns, else the first ones there are."""
    texts = {re.sub(r"[^\w.]+", "", pattern.removeprefix(REGEX)): None for pattern in query.include[:5]}
    close = dict.fromkeys(key for text in texts for key in near(text, keys))
    return tuple(close)[:3] or tuple(keys[:3])
