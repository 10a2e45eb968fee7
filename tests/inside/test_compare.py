"""Whatever views of whatever storages two checkpoints hold, a difference is one of values."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors

from app.deliver.service import Deliver
from app.inside.service import Inside
from tests.deliver.planning import big_endian
from tests.ingest.workplace import ModelName, Workplace, torch_file
from tests.support.measure import examples

VALUES = torch.arange(6000, dtype=torch.float32)
DTYPES = (torch.float32, torch.int64, torch.bfloat16, torch.bool)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("compared")
    made = Workplace.at(folder / "data", folder / "catalog.sqlite3", durable=False)
    yield made
    made.close()


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    """A view of few or many elements, of few different values, so that equal ones are frequent."""
    dtype = draw(st.sampled_from(DTYPES))
    base = (VALUES % draw(st.sampled_from([1, 3, 6000]))).to(dtype)[draw(st.sampled_from([0, 3])) :]
    rows, columns = draw(st.sampled_from([(4, 5), (50, 60), (60, 50), (0, 3)]))
    tensor = base[: rows * columns].reshape(rows, columns)
    match draw(st.sampled_from(["as it is", "transposed", "alone", "part", "repeated"])):
        case "transposed":
            return tensor.t()
        case "alone":
            return tensor.clone()
        case "part":
            return tensor[1:, ::2]
        case "repeated" if rows:
            return tensor[:1].expand(3, *tensor.shape[1:])
    return tensor


states = st.dictionaries(st.sampled_from("abcdef"), views(), min_size=1)
formats = st.sampled_from(["torch", "big-endian", "safetensors"])


def written(state: dict[str, torch.Tensor], format_: str) -> bytes:
    if format_ == "safetensors":
        return save_safetensors({key: tensor.contiguous().clone() for key, tensor in state.items()})
    return big_endian(torch_file(state)) if format_ == "big-endian" else torch_file(state)


def is_same(one: torch.Tensor, two: torch.Tensor) -> bool:
    return one.dtype == two.dtype and one.shape == two.shape and torch.equal(one, two)


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(old=states, new=states, formats=st.tuples(formats, formats))
def test_a_difference_is_one_of_values_in_any_layout_and_format(
    place: Workplace, old: dict, new: dict, formats: tuple[str, str]
) -> None:
    deliver = Deliver(place.catalog, place.store)
    try:
        base, other = (
            place.upload(written(state, format_), ModelName("compared", "model"))
            for state, format_ in zip((old, new), formats, strict=True)
        )
        page = Inside(place.catalog, deliver).differences(base, other, None, 0, 1000, numeric=False)
    finally:
        deliver.close()
    found = {(item.other or item.base).key: item for item, _ in page.items}
    moved_from = [item.base.key for item in found.values() if item.status == "moved"]
    assert len(moved_from) == len(set(moved_from))
    for key in old.keys() | new.keys():
        status = found[key].status if key in found else None
        if key in old and key in new:
            assert status == ("same" if is_same(old[key], new[key]) else "changed")
        elif key in new:
            assert status in {"added", "moved"}
            if status == "moved":
                origin = found[key].base.key
                assert origin not in new
                assert is_same(old[origin], new[key])
            else:
                left = old.keys() - new.keys() - set(moved_from)
                assert not any(is_same(old[each], new[key]) and new[key].numel() for each in left)
        else:
            assert (status is None) == (key in moved_from)
            assert status in {None, "removed"}
    assert sum(page.all.counts.values()) == len(page.items)
