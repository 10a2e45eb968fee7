"""Selection and renaming of a component's keys, in the order the contract fixes."""

import re
from collections.abc import Sequence
from typing import TypeAlias

from ..errors import SelectionError
from ..values.work import Work
from .names import Names
from .near import near
from .patterns import REGEX, PatternSet
from .query import StateDictQuery

MAX_KEY_LENGTH = 4_096
"""Characters in a new name: our readers refuse longer ones."""

MAX_COST = 40_000_000
"""Steps (app/values/work.py) that one list of patterns, or of renames, may take: ten seconds."""

MAX_PREFIX_PARTS = 4
"""Parts of a key that are tried as a prefix to strip."""

Selected: TypeAlias = tuple[tuple[int, str], ...]
"""Positions in the given keys, ascending, each with its new name."""


def select_keys(keys: Sequence[str], query: StateDictQuery, work: Work | None = None) -> Selected:
    """Pick and rename the keys of a state_dict.

    Raises SelectionError ``no-keys-matched``, ``duplicate-key``, ``key-too-long``, ``bad-pattern``, ``bad-rename`` or
    ``too-much-work``; HostileCheckpoint if the selection takes more than is left of ``work``.
    """
    names = Names(query)
    _spend(names, keys, work)
    stripped = [names.strip(key) for key in keys]
    selected = tuple((i, names.rename(stripped[i])) for i in _filter(stripped, query, work))
    _check(keys, selected)
    return selected


def select_leaves(keys: Sequence[str], query: StateDictQuery, work: Work | None = None) -> tuple[int, ...]:
    """Pick leaves of a tree (an optimizer, the root's rest), by position; ``keys`` are the leaves' joined paths.

    Raises SelectionError ``no-keys-matched``, ``bad-pattern``, or ``not-a-state-dict`` if the query renames.
    """
    if query.renames:
        raise SelectionError(
            "strip_prefix, rename and add_prefix need a state_dict; this component is a tree of other values",
            code="not-a-state-dict",
        )
    return tuple(_filter(keys, query, work))


def _spend(patterns: PatternSet | Names, keys: Sequence[str], work: Work | None) -> None:
    cost = patterns.cost(len(keys), sum(map(len, keys)))
    if cost > MAX_COST:
        raise SelectionError(
            f"matching so many patterns or renames with {len(keys):,} keys takes too long: use fewer of them, or "
            "select fewer keys at a time",
            code="too-much-work",
        )
    if work is not None:
        work.spend_asked(cost)


def _filter(keys: Sequence[str], query: StateDictQuery, work: Work | None) -> Sequence[int]:
    picked: Sequence[int] = range(len(keys))
    if query.include:
        include = PatternSet(query.include)
        _spend(include, keys, work)
        picked = [i for i in picked if include.matches(keys[i])]
    if query.exclude:
        exclude = PatternSet(query.exclude)
        _spend(exclude, keys, work)
        picked = [i for i in picked if not exclude.matches(keys[i])]
    if not picked and (keys or query.include):
        prefix = _prefix_in_the_way(keys, query, work)
        hint = f"; some match with strip_prefix={prefix}" if prefix else ""
        raise SelectionError(
            f"none of the {len(keys):,} keys matches {_asked(query)}{hint}",
            code="no-keys-matched",
            near=((f"strip_prefix={prefix}",) if prefix else ()) + _near(keys, query),
        )
    return picked


def _prefix_in_the_way(keys: Sequence[str], query: StateDictQuery, work: Work | None) -> str | None:
    """Shortest prefix of the first key that most keys share, if ``include`` picks a key without the prefix."""
    if not query.include or any(query.strip_prefix):
        return None
    include = PatternSet(query.include)
    prefix = ""
    for part in keys[0].split(".", MAX_PREFIX_PARTS)[:-1] if keys else ():
        prefix += f"{part}."
        having = [key for key in keys if key.startswith(prefix)]
        if 2 * len(having) <= len(keys):
            return None
        _spend(include, having, work)
        if any(include.matches(key.removeprefix(prefix)) for key in having):
            return prefix
    return None


def _check(keys: Sequence[str], selected: Selected) -> None:
    first: dict[str, int] = {}
    for i, new in selected:
        if len(new) > MAX_KEY_LENGTH:
            raise SelectionError(
                f"the new name of {keys[i]!r} has {len(new):,} characters; at most {MAX_KEY_LENGTH:,}",
                code="key-too-long",
            )
        if (other := first.setdefault(new, i)) != i:
            raise SelectionError(
                f"{keys[other]!r} and {keys[i]!r} would both be renamed to {new!r}", code="duplicate-key", near=(new,)
            )


def _asked(query: StateDictQuery) -> str:
    words = [f"include={pattern}" for pattern in query.include] + [f"exclude={pattern}" for pattern in query.exclude]
    return ", ".join(words[:5]) + (" ..." if len(words) > 5 else "")


def _near(keys: Sequence[str], query: StateDictQuery) -> tuple[str, ...]:
    """Return keys close to the text of the include patterns, else the first keys."""
    texts = {re.sub(r"[^\w.]+", "", pattern.removeprefix(REGEX)): None for pattern in query.include[:5]}
    close = dict.fromkeys(key for text in texts for key in near(text, keys))
    return tuple(close)[:3] or tuple(keys[:3])
