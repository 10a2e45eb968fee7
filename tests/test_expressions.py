"""Every regular expression of the server takes time linear in its input, which is a stranger's text.

An expression is tried with texts made for it: each of its repeats in turn goes on for LONG characters, and what follows
does not match. What is linear takes a millisecond; what is quadratic takes a tenth of a second or more, and hours for
what may be sent. As that depends on the machine, what takes long is asked again about a shorter text: the time of a
linear expression falls with the length, that of a quadratic one with its square.
"""

import ast
import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from re import _constants as sre  # type: ignore[attr-defined]  # private: typeshed leaves it out
from re import _parser  # type: ignore[attr-defined]  # as above
from typing import Any

import pytest

import app
from tests.support.docs import ROOT
from tests.support.measure import only_long

LONG = 5_000
SHORTER = 8
"""How many times shorter the second text is."""

BRIEF_SECONDS = 0.01
"""Ten times what a linear expression takes for a LONG text: below it nothing is compared."""

BREAKS_OFF = ("\0", "x\n", "")

MADE_ELSEWHERE = {
    "app/api/requests/params.py": "of a route's own parameter names",
    "app/select/keys.py": "one class of characters",
}
"""Files that use expressions without a name, with what those are made of."""

REPEATS = {sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT}
CATEGORIES = {sre.CATEGORY_DIGIT: "1", sre.CATEGORY_WORD: "a", sre.CATEGORY_SPACE: " ", sre.CATEGORY_NOT_WORD: "-"}


def patterns() -> dict[str, re.Pattern[Any]]:
    """Every compiled expression that a module of the server keeps."""
    found = {}
    for module in pkgutil.walk_packages(app.__path__, "app."):
        if not module.name.endswith("__main__"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, re.Pattern):
                    found[f"{module.name}.{name}"] = value
    return found


def repeats(tree: Any) -> int:
    return sum((op in REPEATS) + sum(map(repeats, inside(op, argument))) for op, argument in tree)


def inside(op: Any, argument: Any) -> list[Any]:
    if op in REPEATS:
        return [argument[2]]
    if op is sre.SUBPATTERN:
        return [argument[-1]]
    if op is sre.ATOMIC_GROUP:
        return [argument]
    return list(argument[1]) if op is sre.BRANCH else []


class Example:
    """Text that an expression matches, all but what its assertions say; its ``pumped``th repeat goes on for long."""

    def __init__(self, pumped: int, long: int) -> None:
        self.pumped = pumped
        self.long = long
        self.met = -1

    def of(self, tree: Any) -> str:
        return "".join(self.part(op, argument) for op, argument in tree)

    def part(self, op: Any, argument: Any) -> str:
        if op in REPEATS:
            self.met += 1
            times = self.long if self.met == self.pumped else max(1, argument[0])
            once = self.of(argument[2])
            return (once * min(times, argument[1]))[: max(self.long, len(once))]
        if op is sre.LITERAL:
            return chr(argument)
        if op is sre.NOT_LITERAL:
            return "a" if argument != ord("a") else "b"
        if op is sre.ANY:
            return "a"
        if op is sre.IN:
            return next(c for c in ("1", "a", *map(chr, range(256))) if matches_class(argument, c))
        if op is sre.BRANCH:
            return max((self.of(branch) for branch in argument[1]), key=len)
        return "".join(map(self.of, inside(op, argument)))


def matches_class(items: Any, character: str) -> bool:
    found = any(matches_item(op, argument, character) for op, argument in items if op is not sre.NEGATE)
    return found != (items[0][0] is sre.NEGATE)


def matches_item(op: Any, argument: Any, character: str) -> bool:
    if op is sre.RANGE:
        return argument[0] <= ord(character) <= argument[1]
    return CATEGORIES[argument] == character if op is sre.CATEGORY else argument == ord(character)


def worst_texts(pattern: re.Pattern[Any], long: int) -> Iterator[Any]:
    tree = _parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else 0)
    for pumped in range(repeats(tree)):
        for end in BREAKS_OFF:
            text = Example(pumped, long).of(tree) + end
            yield text.encode("latin-1") if isinstance(pattern.pattern, bytes) else text


def ways_to_ask(pattern: re.Pattern[Any]) -> list[Callable[[Any], object]]:
    return [pattern.fullmatch, pattern.match, lambda text: list(pattern.finditer(text))]


def seconds(ask: Callable[[Any], object], text: Any, times: int = 1) -> float:
    """CPU time, the least of so many."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        ask(text)
        taken.append(time.process_time() - start)
    return min(taken)


def is_linear(pattern: re.Pattern[Any]) -> bool:
    """Tell whether its time grows with the length of the text and not with the square, for each way to ask it."""
    texts = zip(worst_texts(pattern, LONG), worst_texts(pattern, LONG // SHORTER), strict=True)
    return all(grows_linearly(ask, long, short) for long, short in texts for ask in ways_to_ask(pattern))


def grows_linearly(ask: Callable[[Any], object], long: Any, short: Any) -> bool:
    if seconds(ask, long) < BRIEF_SECONDS:
        return True
    return seconds(ask, long, 3) < SHORTER**1.5 * seconds(ask, short, 5)


def test_every_expression_is_linear_in_what_it_reads() -> None:
    assert [name for name, pattern in patterns().items() if not is_linear(pattern)] == []


@pytest.mark.parametrize(
    "quadratic",
    [
        pytest.param(rb"-?(?:[0-9]+\.?[0-9]*(?:e[-+]?[0-9]+)?|inf|nan)", marks=only_long),
        r"key=(\w*)\w*;",
        r'"(?:a|b)*[ab]*"',
    ],
)
def test_an_expression_that_is_not_is_found(quadratic: str | bytes) -> None:
    assert not is_linear(re.compile(quadratic))


def test_every_expression_has_a_name_under_which_this_finds_it() -> None:
    without = set()
    for file in (ROOT / "app").rglob("*.py"):
        tree = ast.parse(file.read_text())
        named = {id(node.value) for node in tree.body if isinstance(node, ast.Assign)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and id(node) not in named:
                of = node.func.value
                if isinstance(of, ast.Name) and of.id == "re" and node.func.attr != "escape":
                    without.add(file.relative_to(ROOT).as_posix())
    assert without == set(MADE_ELSEWHERE)
