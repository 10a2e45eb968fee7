"""Prefixes by which a checkpoint's keys differ from a model's: those of wrappers, and others. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import takewhile
from urllib.parse import quote

WRAPPERS = ("module", "_orig_mod")
"""Names under which DataParallel, DistributedDataParallel and torch.compile keep the module inside."""

RUNS = ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")

MAX_RENAMES_LENGTH = 7_000
"""Longest renames in a URL, in characters, counting 16 for each rename besides its names: proxies accept 8 KiB."""

Renames = list[tuple[str, str]]


def has_wrappers(keys: Iterable[str]) -> bool:
    return any(name in WRAPPERS for key in keys for name in key.split(".")[:-1])


def renames_between(have: Collection[str], want: Collection[str]) -> Renames:
    """Return the renames, prefix to prefix, that turn a checkpoint's keys into the model's, if they differ only in
    wrappers, on either side and at any depth. The list is empty if there are no such keys, or too many places.

    Of several prefixes of a key, the longest applies, and stands first. If no key has a counterpart, as in a checkpoint
    for a module that accepts other names than its own, wrappers around all keys are removed.
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
    """Return the wrappers that only one side has (``module.``), each once."""
    runs = (_run(old) or _run(new) for old, new in renames if old != new)
    return ", ".join(dict.fromkeys(run for run in runs if run))


def prefix_hint(have: Collection[str], want: Collection[str], matched: int) -> str | None:
    """Return ``strip_prefix=model.`` or ``add_prefix=model.`` if most keys would match with it, and more than now."""
    names, wanted = set(have), set(want)
    best: tuple[int, str, str] = (max(matched, min(len(names), len(wanted)) // 2), "", "")
    for field, keys, others in (("strip_prefix", names, wanted), ("add_prefix", wanted, names)):
        counts = Counter(prefix for key in keys if key not in others for prefix in _prefixes(key, others))
        for prefix, count in counts.most_common(1):
            if count > best[0]:
                best = (count, field, prefix)
    return f"{best[1]}={best[2]}" if best[1] else None


def _prefixes(key: str, others: Collection[str]) -> Iterable[str]:
    """Yield every prefix of the key without which it is one of the others."""
    at = key.find(".")
    while at >= 0:
        if key[at + 1 :] in others:
            yield key[: at + 1]
        at = key.find(".", at + 1)


def _by_bare_name(keys: Iterable[str]) -> Mapping[str, str]:
    """Return keys by their names without wrappers, except names that two keys would share."""
    found: dict[str, str | None] = {}
    for key in keys:
        *names, last = key.split(".")
        bare = ".".join([*(name for name in names if name not in WRAPPERS), last])
        found[bare] = None if bare in found else key
    return {bare: key for bare, key in found.items() if key is not None}


def _differing(key: str, other: str) -> tuple[str, str]:
    """Return the prefixes of the two keys before their common ending of whole names."""
    names, others = key.split("."), other.split(".")
    while names and others and names[-1] == others[-1]:
        names.pop()
        others.pop()
    return "".join(f"{name}." for name in names), "".join(f"{name}." for name in others)


def _common_run(keys: Iterable[str]) -> str:
    """Return the wrappers with which all keys begin."""
    runs = {"".join(f"{name}." for name in takewhile(WRAPPERS.__contains__, key.split(".")[:-1])) for key in keys}
    return runs.pop() if len(runs) == 1 else ""


def _run(prefix: str) -> str:
    return "".join(f"{name}." for name in prefix.split(".") if name in WRAPPERS)
