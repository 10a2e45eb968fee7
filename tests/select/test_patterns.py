from fnmatch import fnmatchcase

import pytest
import re2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import SelectionError
from app.select.patterns import MAX_PROGRAM_SIZE, PatternSet, Rewrite

alphabet = "ab.-!^]é\n\\"
keys = st.text(alphabet=alphabet + "[*?\0", max_size=8)
ranges = st.tuples(st.sampled_from("abé."), st.sampled_from("abé.")).map(lambda ends: "-".join(sorted(ends)))
classes = st.builds(
    "[{}{}]".format, st.sampled_from(["", "!"]), st.lists(ranges | st.sampled_from("ab.^é\\"), min_size=1).map("".join)
)
globs = st.lists(st.sampled_from([*alphabet, "\0", "(", "+", "*", "?"]) | classes, max_size=6).map("".join)


@settings(deadline=None)
@given(st.lists(globs, max_size=3), st.lists(keys, max_size=20))
@example(["[", "a[", "[!", "[]", "[!]"], ["[", "a[", "[!", "[]", "[!]"])
@example(["[]a]", "[!]a]", "[^a]", "[a-]"], list("]a^-b"))
@example(["*\n*"], ["a\nb"])
def test_globs_mean_what_fnmatchcase_says(patterns: list[str], names: list[str]) -> None:
    matching = PatternSet(patterns)
    for name in names:
        assert matching.matches(name) == any(fnmatchcase(name, pattern) for pattern in patterns)


def test_a_star_crosses_dots() -> None:
    assert PatternSet(["encoder.*.weight"]).matches("encoder.layers.0.attn.weight")
    assert PatternSet(["conv*"]).matches("conv1.weight")
    assert not PatternSet(["conv*"]).matches("deconv1.weight")


def test_case_matters() -> None:
    assert not PatternSet(["Conv*", "*.Weight", "CONV1.WEIGHT", "re:CONV.*"]).matches("conv1.weight")


def test_an_expression_has_to_match_the_whole_key() -> None:
    assert PatternSet([r"re:fc\d\.weight"]).matches("fc1.weight")
    assert not PatternSet([r"re:fc\d"]).matches("fc1.weight")
    assert not PatternSet([r"re:c1\.weight"]).matches("fc1.weight")
    assert PatternSet(["re:a|ab"]).matches("ab")


def test_no_pattern_matches_no_key() -> None:
    assert not PatternSet([]).matches("")
    assert not PatternSet([]).matches("a")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("re:(", "missing )"),
        ("re:(?=a)", "invalid perl operator"),
        (r"re:(a)\1", "invalid escape"),
        ("re:a{1001}", "invalid repetition"),
        (r"re:\pL{900}", "too large"),
        ("[z-a]", "invalid character class range"),
        ("?" * 5000, "longer than"),
    ],
)
def test_a_pattern_that_cannot_be_matched_in_linear_time_is_refused_and_shown(pattern: str, reason: str) -> None:
    with pytest.raises(SelectionError) as refused:
        PatternSet([pattern])
    assert refused.value.code == "bad-pattern"
    assert reason in refused.value.detail
    assert pattern[:20] in refused.value.detail


def test_patterns_are_limited_together_but_keys_and_prefixes_are_not() -> None:
    with pytest.raises(SelectionError, match="too large"):
        PatternSet([f"*{i}?" for i in range(MAX_PROGRAM_SIZE // 4)])
    many = PatternSet([f"layers.{i}.weight" for i in range(50_000)] + [f"blocks.{i}.*" for i in range(500)])
    assert many.matches("layers.49999.weight")
    assert many.matches("blocks.499.bias")
    assert not many.matches("blocks.500.bias")


def test_the_largest_set_allowed_still_matches_every_key() -> None:
    patterns, size = [], 0
    while size < MAX_PROGRAM_SIZE - 200:
        patterns.append(f"*{len(patterns)}" + "?" * 40 + "x*")
        size += re2.compile(patterns[-1].replace("*", ".*").replace("?", ".")).programsize + 20
    matching = PatternSet(patterns)
    key = "0123456789" * 30
    assert matching.matches(f"{key}x{key}")
    assert not matching.matches(key)


@pytest.mark.parametrize("key", ["\ud800", "a\udfff", "\0"])
def test_a_key_that_is_no_utf8_is_matched_like_any_other(key: str) -> None:
    assert PatternSet(["*" + key[-1] + "*"]).matches(key)
    assert PatternSet([key]).matches(key)
    assert not PatternSet(["[a-z]?x"]).matches(key)
    assert Rewrite("re:a", "b").apply(key) is None


def test_a_rewrite_puts_groups_into_its_template() -> None:
    assert Rewrite(r"re:layer(\d+)\.(.*)", r"blocks.\1.\2").apply("layer12.conv.weight") == "blocks.12.conv.weight"
    assert Rewrite(r"re:layer(\d+)\.(.*)", r"blocks.\1.\2").apply("fc.weight") is None
    assert Rewrite("re:(a)|(b)", r"<\1\2>").apply("b") == "<b>"
    assert Rewrite("re:.*", r"\\1\0").apply("é") == r"\1é"


@pytest.mark.parametrize("template", ["\\2", "\\g<1>", "\\", "a\\", "\\\\\\", "\\x"])
def test_a_template_with_an_escape_it_cannot_fill_is_refused(template: str) -> None:
    with pytest.raises(SelectionError) as refused:
        Rewrite("re:(a)", template)
    assert refused.value.code == "bad-pattern"


@settings(deadline=None)
@given(st.lists(st.sampled_from(["\\0", "\\1", "\\2", "\\\\", "x", "1", "é"]), max_size=6).map(tuple), keys)
def test_templates_expand_piece_by_piece(parts: tuple[str, ...], key: str) -> None:
    values = {"\\0": key, "\\1": key[:1], "\\2": key[1:], "\\\\": "\\"}
    assert Rewrite("re:(.?)(.*)", "".join(parts)).apply(key) == "".join(values.get(part, part) for part in parts)
