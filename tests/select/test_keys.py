import re
from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import SelectionError
from app.select.keys import select_keys, select_leaves
from app.select.query import StateDictQuery

CLASSIFIER = [f"{layer}.{leaf}" for layer in ("conv1", "conv2", "fc1", "fc2", "fc3") for leaf in ("weight", "bias")]


def names(keys: list[str], **fields: object) -> list[str]:
    return [name for _, name in select_keys(keys, StateDictQuery(**fields))]  # type: ignore[arg-type]


def refusal(select: Callable[..., object], keys: list[str], **fields: object) -> SelectionError:
    with pytest.raises(SelectionError) as refused:
        select(keys, StateDictQuery(**fields))  # type: ignore[arg-type]
    return refused.value


def test_without_a_filter_every_key_stays() -> None:
    assert select_keys(CLASSIFIER, StateDictQuery()) == tuple(enumerate(CLASSIFIER))


def test_include_picks_and_exclude_takes_out_of_that() -> None:
    assert names(CLASSIFIER, include=("conv*",), exclude=("*.bias",)) == ["conv1.weight", "conv2.weight"]
    assert names(CLASSIFIER, exclude=("conv*", "*.bias")) == ["fc1.weight", "fc2.weight", "fc3.weight"]


def test_keys_without_the_stripped_prefix_pass() -> None:
    assert names(["module.a", "b", "module.module.c"], strip_prefix=("module.",)) == ["a", "b", "module.c"]


def test_prefixes_are_taken_off_in_turn() -> None:
    keys = ["module._orig_mod.a", "_orig_mod.b", "_orig_mod.module.c", "d"]
    assert names(keys, strip_prefix=("module.", "_orig_mod.")) == ["a", "b", "module.c", "d"]
    assert names(keys, strip_prefix=("module.", "_orig_mod.", "module.")) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("prefix", "include"), [("module.", "conv1.*"), ("model.net.", "re:fc.*"), ("_orig_mod.", "fc1.weight")]
)
def test_nothing_matched_names_the_prefix_that_is_in_the_way(prefix: str, include: str) -> None:
    error = refusal(select_keys, [prefix + key for key in CLASSIFIER], include=(include,))
    assert error.near[0] == f"strip_prefix={prefix}"
    assert f"strip_prefix={prefix}" in error.detail
    assert names([prefix + key for key in CLASSIFIER], include=(include,), strip_prefix=(prefix,))


def test_no_prefix_is_named_that_does_not_help() -> None:
    keys = [f"module.{key}" for key in CLASSIFIER]
    assert not refusal(select_keys, keys, include=("conv9.*",)).near[0].startswith("strip_prefix")
    few = [*CLASSIFIER, "module.head.weight"]
    assert not refusal(select_keys, few, include=("head.*",)).near[0].startswith("strip_prefix")


def test_filters_see_stripped_names_and_renames_see_them_too() -> None:
    keys = ["module.conv.weight", "module.fc.weight"]
    assert names(
        keys, strip_prefix=("module.",), include=("conv*",), rename=(("conv", "body"),), add_prefix="net."
    ) == ["net.body.weight"]


def test_the_first_rename_that_matches_wins() -> None:
    rename = (("a.b.", "x."), ("a.", "y."), (r"re:(.*)\.weight", r"\1.w"), ("c.", "never."))
    assert names(["a.b.weight", "a.weight", "c.weight", "c.bias"], rename=rename) == [
        "x.weight",
        "y.weight",
        "c.w",
        "never.bias",
    ]


def test_two_keys_with_one_name_are_refused_and_both_are_named() -> None:
    error = refusal(select_keys, ["a.w", "b.w"], rename=(("a.", "c."), ("b.", "c.")))
    assert error.code == "duplicate-key"
    assert "'a.w' and 'b.w'" in error.detail
    assert "'c.w'" in error.detail


def test_swapping_two_names_is_no_clash() -> None:
    assert names(["a.w", "b.w"], rename=(("a.", "b."), ("b.", "a."))) == ["b.w", "a.w"]


def test_nothing_matched_comes_with_keys_that_are_close() -> None:
    error = refusal(select_keys, CLASSIFIER, include=("Conv1.*",))
    assert error.code == "no-keys-matched"
    assert error.near[0] == "conv1.weight"
    assert refusal(select_keys, CLASSIFIER, include=("conv1.weihgt",)).near[0] == "conv1.weight"
    assert refusal(select_keys, CLASSIFIER, include=("zzzzzzzz",)).near == tuple(CLASSIFIER[:3])


def test_everything_excluded_is_nothing_matched() -> None:
    assert refusal(select_keys, CLASSIFIER, exclude=("*",)).code == "no-keys-matched"


def test_an_empty_state_dict_can_be_asked_for_whole() -> None:
    assert select_keys([], StateDictQuery(exclude=("a*",))) == ()
    assert refusal(select_keys, [], include=("a*",)).code == "no-keys-matched"


def test_a_key_may_not_grow_without_end() -> None:
    error = refusal(select_keys, ["a" * 4000], rename=(("re:(.*)", r"\1\1"),))
    assert error.code == "key-too-long"


def test_more_renames_than_anyone_needs_are_refused() -> None:
    assert refusal(select_keys, ["a"], rename=(("b", "c"),) * 1001).code == "bad-rename"


def test_leaves_of_a_tree_are_filtered_on_joined_paths() -> None:
    leaves = ["state.0.exp_avg", "state.0.step", "state.1.exp_avg", "param_groups.0.lr"]
    assert select_leaves(leaves, StateDictQuery(include=("*.exp_avg",))) == (0, 2)
    assert select_leaves(leaves, StateDictQuery(include=("state.*",), exclude=("*.step",))) == (0, 2)
    assert refusal(select_leaves, leaves, include=("momentum*",)).code == "no-keys-matched"


@pytest.mark.parametrize("fields", [{"strip_prefix": ("state.",)}, {"rename": (("a", "b"),)}, {"add_prefix": "x."}])
def test_leaves_of_a_tree_keep_their_names(fields: dict[str, object]) -> None:
    assert refusal(select_leaves, ["state.0.exp_avg"], **fields).code == "not-a-state-dict"


parts = st.sampled_from(["a", "b", "module", "w"])
keys = st.lists(parts, min_size=1, max_size=4).map(".".join)
prefixes = st.none() | st.sampled_from(["a.", "module.", "a", ""])
globs = st.lists(st.sampled_from(["a", "b", "module", "w", ".", "*", "?", "[ab]"]), min_size=1, max_size=4).map("".join)
renames = st.sampled_from(
    [("a.", "b."), ("module.", ""), ("", "x."), ("b", "a"), (r"re:(.*)\.w", r"\1.v"), (r"re:(\w)\.(.*)", r"\2.\1")]
)


def outcome(select: Callable[[], list[tuple[int, str]]]) -> list[tuple[int, str]] | str:
    """What is picked, or the code of the refusal."""
    try:
        return select()
    except SelectionError as error:
        return error.code


def oracle(all_keys: list[str], query: StateDictQuery) -> list[tuple[int, str]]:
    """The contract, in plain words."""
    answer = []
    for i, key in enumerate(all_keys):
        name = key
        for prefix in query.strip_prefix:
            name = name.removeprefix(prefix)
        if query.include and not any(fnmatchcase(name, glob) for glob in query.include):
            continue
        if any(fnmatchcase(name, glob) for glob in query.exclude):
            continue
        for old, new in query.rename:
            if old.startswith("re:"):
                found = re.fullmatch(old.removeprefix("re:"), name)
                if found:
                    name = found.expand(new)
                    break
            elif name.startswith(old):
                name = new + name[len(old) :]
                break
        answer.append((i, (query.add_prefix or "") + name))
    if not answer and (all_keys or query.include):
        raise SelectionError("", code="no-keys-matched")
    if len({name for _, name in answer}) < len(answer):
        raise SelectionError("", code="duplicate-key")
    return answer


@settings(deadline=None)
@given(
    st.lists(keys, max_size=12, unique=True),
    st.builds(
        StateDictQuery,
        strip_prefix=st.lists(st.sampled_from(["a.", "module.", "a", ""]), max_size=3).map(tuple),
        include=st.lists(globs, max_size=2).map(tuple),
        exclude=st.lists(globs, max_size=2).map(tuple),
        rename=st.lists(renames, max_size=3).map(tuple),
        add_prefix=prefixes,
    ),
)
def test_a_selection_is_what_the_contract_says_in_plain_words(all_keys: list[str], query: StateDictQuery) -> None:
    assert outcome(lambda: list(select_keys(all_keys, query))) == outcome(lambda: oracle(all_keys, query))
