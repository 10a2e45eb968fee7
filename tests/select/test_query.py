from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import SelectionError
from app.select.query import StateDictQuery, parse_device, parse_rename


def test_the_first_arrow_splits_a_rename() -> None:
    assert parse_rename("a.=>b.") == ("a.", "b.")
    assert parse_rename("a=>b=>c") == ("a", "b=>c")
    assert parse_rename("=>b.") == ("", "b.")
    assert parse_rename("module.=>") == ("module.", "")


def test_a_rename_without_an_arrow_is_refused() -> None:
    with pytest.raises(SelectionError, match="OLD=>NEW") as refused:
        parse_rename("a.:b.")
    assert refused.value.code == "bad-rename"


@pytest.mark.parametrize(
    "device", ["cpu", "cuda", "cuda:0", "cuda:127", "mps", "xpu:1", "hpu", "meta", "mtia:3", "xla"]
)
def test_a_device_that_torch_knows_is_kept(device: str) -> None:
    assert parse_device(device) == device
    assert str(torch.device(device)) == device


def test_a_device_of_which_there_is_one_loses_its_index() -> None:
    assert [parse_device(text) for text in ("cpu:0", "meta:0", "mps:0")] == ["cpu", "meta", "mps"]


@pytest.mark.parametrize(
    "device", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:00", "cuda:128", "cuda:0:1", "cuda:٣", "cpu:1", "cuda:0\n"]
)
def test_any_other_device_is_refused(device: str) -> None:
    with pytest.raises(SelectionError) as refused:
        parse_device(device)
    assert refused.value.code == "unknown-device"


def test_a_mistyped_device_comes_with_what_it_may_have_meant() -> None:
    with pytest.raises(SelectionError) as refused:
        StateDictQuery(device="cude:1")
    assert "cuda" in refused.value.near


def test_a_format_that_is_not_served_is_refused() -> None:
    with pytest.raises(SelectionError) as refused:
        StateDictQuery(format="onnx")  # type: ignore[arg-type]  # what a request may say
    assert refused.value.code == "unknown-format"


texts = st.text(max_size=4)
queries = st.builds(
    StateDictQuery,
    component=st.none() | texts,
    strip_prefix=st.lists(texts, max_size=2).map(tuple),
    include=st.lists(texts, max_size=3).map(tuple),
    exclude=st.lists(texts, max_size=3).map(tuple),
    rename=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    add_prefix=st.none() | texts,
    device=st.sampled_from([None, "cpu", "cuda:1"]),
)


def meaning(query: StateDictQuery) -> tuple[object, ...]:
    return (
        query.component,
        tuple(filter(None, query.strip_prefix)),
        frozenset(query.include),
        frozenset(query.exclude),
        query.rename,
        query.add_prefix or None,
        query.device,
    )


@settings(deadline=None)
@given(queries, queries)
def test_normalised_text_is_equal_exactly_when_the_meaning_is(one: StateDictQuery, other: StateDictQuery) -> None:
    assert (one.normalised() == other.normalised()) == (meaning(one) == meaning(other))


@settings(deadline=None)
@given(queries)
def test_the_order_and_number_of_filters_change_no_normalised_text(query: StateDictQuery) -> None:
    again = replace(query, include=query.include[::-1] + query.include, exclude=query.exclude[::-1] + query.exclude)
    assert again.normalised() == query.normalised()


def test_the_default_component_is_not_the_flat_one() -> None:
    assert StateDictQuery().normalised() != StateDictQuery(component="").normalised()
