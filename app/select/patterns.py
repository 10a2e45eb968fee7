"""Users' patterns on keys: globs and linear-time regular expressions. Only this module uses re2.

A pattern is a case-sensitive glob in which ``*`` crosses dots (``?`` is one character, ``[a-z]`` and ``[!a-z]`` one of
a class), or ``re:`` and an RE2 expression. Either has to match the whole key. RE2 takes time linear in the key, but
also in the expression, so the compiled size of patterns that are matched together is limited.

Every function raises SelectionError ``bad-pattern`` for a pattern that cannot be compiled or is too large.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import re2

from ..errors import SelectionError

MAX_PATTERN_LENGTH = 4_096
"""Characters in a pattern: as long as a key may be."""

MAX_PROGRAM_SIZE = 4_000
"""RE2 instructions of all patterns matched together; ``*.attn.*.weight`` takes about 30."""

INSTRUCTIONS_PER_STEP = 50
"""RE2 may look at each of its instructions for each character."""

MAX_PREFIXES = 1_000
"""Patterns such as ``layer1.*``: each is compared with each key."""

_MEMORY = 8 << 20
"""Bytes for RE2's automaton: many times what the instructions need, because a set has no slower fallback."""

REGEX = "re:"
_MAGIC = frozenset("*?[")
_SPECIAL = frozenset("\\.+*?()|[]{}^$-")


class PatternSet:
    """Patterns compiled once; ``matches(key)`` tells whether any pattern matches the whole of ``key``.

    Plain keys and ``prefix*`` are looked up, however many there are; only RE2 matches the rest.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        keys, prefixes, expressions = [], [], []
        for pattern in dict.fromkeys(patterns):
            _check_length(pattern)
            if pattern.startswith(REGEX):
                expressions.append((pattern, pattern.removeprefix(REGEX)))
            elif not _MAGIC.intersection(pattern):
                keys.append(pattern)
            elif pattern.endswith("*") and not _MAGIC.intersection(pattern[:-1]):
                prefixes.append(pattern[:-1])
            else:
                expressions.append((pattern, "".join(_glob(pattern))))
        if len(prefixes) > MAX_PREFIXES:
            raise SelectionError(
                f"{len(prefixes):,} patterns end in *; at most {MAX_PREFIXES:,} are allowed", code="bad-pattern"
            )
        self._keys = frozenset(keys)
        self._prefixes = tuple(prefixes)
        self._set, self._program_size = _compile_set(expressions)

    def cost(self, keys: int, characters: int) -> int:
        """Steps that ``matches`` takes for so many keys of so many characters."""
        return keys * (4 + len(self._prefixes) // 20) + characters * self._program_size // INSTRUCTIONS_PER_STEP

    def matches(self, key: str) -> bool:
        return (
            key in self._keys
            or key.startswith(self._prefixes)
            or (self._set is not None and bool(self._set.Match(encode(key))))
        )


class Rewrite:
    r"""A whole-key expression and a template, in which ``\1`` to ``\9`` are its groups and ``\\`` is a backslash."""

    def __init__(self, pattern: str, template: str) -> None:
        self._regex = _compile(pattern, pattern.removeprefix(REGEX))
        self.program_size: int = self._regex.programsize
        self._parts = tuple(_template(pattern, template, self._regex.groups))

    def apply(self, key: str) -> str | None:
        """The new name, or None where the expression does not match the whole of ``key``."""
        found = self._regex.fullmatch(encode(key))
        if found is None:
            return None
        # An expression with \C may split a character; a group that took no part is empty.
        groups = [b"" if group is None else group for group in (found[0], *found.groups())]
        return "".join(p if isinstance(p, str) else groups[p].decode(errors="replace") for p in self._parts)


def encode(text: str) -> bytes:
    """Encode as UTF-8. A lone surrogate, which UTF-8 excludes, is left for RE2 to refuse or not match."""
    return text.encode(errors="surrogatepass")


def check_program_size(pattern: str, size: int) -> None:
    if size > MAX_PROGRAM_SIZE:
        raise _bad(
            pattern,
            f"too large: with those before it, it compiles to {size:,} instructions, at most {MAX_PROGRAM_SIZE:,}",
        )


def _glob(pattern: str) -> Iterator[str]:
    """Translate a glob to an expression. As in fnmatch, ``[`` without its ``]`` is literal."""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            yield ".*"
        elif char == "?":
            yield "."
        elif char == "[" and (end := pattern.find("]", at + 1 + pattern.startswith("!", at))) > 0:
            yield _character_class(pattern[at:end])
            at = end + 1
        else:
            yield _literal(char)


def _character_class(text: str) -> str:
    negated = text.startswith("!")
    escaped = "".join(char if char == "-" else _literal(char) for char in text[negated:])
    return f"[{'^' * negated}{escaped}]"


def _literal(char: str) -> str:
    return f"\\{char}" if char in _SPECIAL else char


def _template(pattern: str, template: str, groups: int) -> Iterator[str | int]:
    """Literal text and group numbers, in order."""
    text, *escapes = template.split("\\")
    yield text
    rest = iter(escapes)
    for escape in rest:
        if not escape and (after := next(rest, None)) is not None:
            yield "\\" + after  # two backslashes: text follows the second
        elif escape[:1].isascii() and escape[:1].isdecimal() and int(escape[0]) <= groups:
            yield int(escape[0])
            yield escape[1:]
        else:
            raise _bad(pattern, f"its replacement {template} has \\{escape[:1]}, but it has {groups} groups")


def _check_length(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise _bad(pattern[:100] + "...", f"longer than {MAX_PATTERN_LENGTH:,} characters")


def _compile(pattern: str, expression: str) -> Any:
    """Compile ``expression``; ``pattern`` is the user's text, for the message."""
    _check_length(pattern)
    try:
        compiled = re2.compile(encode(expression), _options())
    except re2.error as error:
        reason = error.args[0]
        raise _bad(pattern, reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None
    check_program_size(pattern, compiled.programsize)
    return compiled


def _compile_set(expressions: Sequence[tuple[str, str]]) -> tuple[Any, int]:
    """Compile whole-key expressions to one automaton (None if there are none); return its instruction count too."""
    if not expressions:
        return None, 0
    result = re2.Set.FullMatchSet(_options())
    size = 0
    for pattern, expression in expressions:
        size += _compile(pattern, expression).programsize  # compiled alone first, because a set gives no reasons
        check_program_size(pattern, size)
        result.Add(encode(expression))
    result.Compile()
    return result, size


def _options() -> Any:
    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    options.max_mem = _MEMORY
    return options


def _bad(pattern: str, reason: str) -> SelectionError:
    return SelectionError(f"pattern {pattern}: {reason}", code="bad-pattern")
