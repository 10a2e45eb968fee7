"""Prefixes that wrappers put before keys, and others that stand between a checkpoint's keys and a model's. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import takewhile
from urllib.parse import quote

WRAPPERS = ("module", "_orig_mod")
"""Names under which DataParallel, DistributedDataParallel and torch.compile keep the module inside."""

RUNS = ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")

MAX_RENAMES_LENGTH = 7_000
"""Characters in an address, with a rename's 16 around its names: proxies let pass 8 KiB."""

Renames = list[tuple[str, str]]


def has_wrappers(keys: Iterable[str]) -> bool:
    return any(name in WRAPPERS for key in keys for name in key.split(".")[:-1])


def renames_between(have: Collection[str], want: Collection[str]) -> Renames:
    """Renames, prefix to prefix, that give a checkpoint's keys the names that a model has for them, where only wrappers
    make the difference, on either side and at any depth. There are none for no such keys, or too many places.

    Of several that a key begins with, the longest is meant, and stands first. Where no key has its like, as in a
    checkpoint for a module that takes other names than its own, wrappers around all of it are taken off.
    """
    wanted = _by_bare_name(want)
    moves: dict[str, str] = {}
    for bare, key in _by_bare_name(have).items():
        if bare in wanted and key not in want:
            old, new = _differing(key, wanted[bare])
            moves.setdefault(old, new)
    if not moves and not any(key in want for key in have):
        run = _common_run(have)
        return [(run, "")] if run and not any(key.startswith(run) for key in want) else []
    moves.update({key: key for key in have if key in want and _renamed(key, moves) != key})
    length = sum(len(quote(old + new)) + 16 for old, new in moves.items())
    if length > MAX_RENAMES_LENGTH or any("=>" in old for old in moves):
        return []
    return sorted(moves.items(), key=lambda move: len(move[0]), reverse=True)


def _renamed(key: str, moves: Mapping[str, str]) -> str:
    at = len(key)
    while at >= 0:
        if key[:at] in moves:
            return moves[key[:at]] + key[at:]
        at = key.rfind(".", 0, max(at - 1, 0)) + 1 if at else -1
    return key


def wrappers_in(renames: Renames) -> str:
    """The wrappers that one side has and the other has not: ``module.``; of several places, each once."""
    runs = (_run(old) or _run(new) for old, new in renames if old != new)
    return ", ".join(dict.fromkeys(run for run in runs if run))


def prefix_hint(have: Collection[str], want: Collection[str], matched: int) -> str | None:
    """``strip_prefix=model.`` or ``add_prefix=model.``, where most keys would match with it, and more than now."""
    names, wanted = set(have), set(want)
    best: tuple[int, str, str] = (max(matched, min(len(names), len(wanted)) // 2), "", "")
    for field, keys, others in (("strip_prefix", names, wanted), ("add_prefix", wanted, names)):
        counts = Counter(prefix for key in keys if key not in others for prefix in _prefixes(key, others))
        for prefix, count in counts.most_common(1):
            if count > best[0]:
                best = (count, field, prefix)
    return f"{best[1]}={best[2]}" if best[1] else None


def _prefixes(key: str, others: Collection[str]) -> Iterable[str]:
    """Whatever can be taken off the key to leave one of the others."""
    at = key.find(".")
    while at >= 0:
        if key[at + 1 :] in others:
            yield key[: at + 1]
        at = key.find(".", at + 1)


def _by_bare_name(keys: Iterable[str]) -> Mapping[str, str]:
    """Keys by what they would be without wrappers, but for those of which there would be two."""
    found: dict[str, str | None] = {}
    for key in keys:
        *names, last = key.split(".")
        bare = ".".join([*(name for name in names if name not in WRAPPERS), last])
        found[bare] = None if bare in found else key
    return {bare: key for bare, key in found.items() if key is not None}


def _differing(key: str, other: str) -> tuple[str, str]:
    """The two without what they have in common at their end, from a name's beginning on."""
    names, others = key.split("."), other.split(".")
    while names and others and names[-1] == others[-1]:
        names.pop()
        others.pop()
    return "".join(f"{name}." for name in names), "".join(f"{name}." for name in others)


def _common_run(keys: Iterable[str]) -> str:
    """The wrappers that all keys begin with."""
    runs = {"".join(f"{name}." for name in takewhile(WRAPPERS.__contains__, key.split(".")[:-1])) for key in keys}
    return runs.pop() if len(runs) == 1 else ""


def _run(prefix: str) -> str:
    return "".join(f"{name}." for name in prefix.split(".") if name in WRAPPERS)
