"""Claims on tensors whose opcodes are read at once: they are read as the machine reads them, opcode by opcode."""

import io
import zipfile
from collections.abc import Mapping

import pytest
import torch

from app.errors import RefusedCheckpoint
from app.formats.pickle import dense
from app.formats.pickle.emit import emit
from app.formats.pickle.machine import parse
from app.formats.torch_tensors import TorchHooks
from tests.support.measure import long, some

MARKS = b"(("
PARTED = b"(N0("
"""The marks of a tensor's arguments, with a None between them that is dropped: such a tensor is not read at once."""

STATE: Mapping[str, object] = {
    "scalar": torch.tensor(1.0),
    "vector": torch.arange(300.0),
    "matrix": torch.ones(3, 70_000),
    "kernels": torch.ones(2, 3, 4, 5).transpose(1, 2),
    "empty": torch.empty(0, 7),
    "half": torch.ones(2, 2, 2, dtype=torch.float16),
    "gradient": torch.ones(4, requires_grad=True),
    "parameter": torch.nn.Parameter(torch.ones(5)),
    "epoch": 3,
    **{f"layer.{number}": torch.full((number % 5 + 1,), 1.0) for number in range(150)},
}


def pickle_of(state: object, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, pickle_protocol=protocol)
    return zipfile.ZipFile(file).read("archive/data.pkl")


def read(data: bytes) -> tuple[str, object]:
    """Return what a pickle is read as: the tree, written again, with its storages; or the broken rule."""
    hooks = TorchHooks()
    try:
        root = parse(data, hooks)
    except RefusedCheckpoint as error:
        return "refused", error.rule
    stored = [(key, each.location, each.nbytes) for key, each in hooks.storages.items()]
    return "read", (emit(root), stored, hooks.unsafe_globals)


def test_most_tensors_of_torch_save_are_read_at_once() -> None:
    data = pickle_of(STATE)
    found = sum(dense.TENSOR.match(data, position) is not None for position in range(len(data)))
    assert found >= 120


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_they_are_read_as_those_of_other_protocols(protocol: int) -> None:
    assert read(pickle_of(STATE)) == read(pickle_of(STATE, protocol))


def test_they_are_read_as_opcode_by_opcode() -> None:
    data = pickle_of(STATE)
    assert read(data) == read(data.replace(MARKS, PARTED))


def test_tensors_that_share_a_storage_still_share_it() -> None:
    tied = torch.arange(20.0)
    data = pickle_of({**STATE, "tied": [tied, tied, tied[4:], tied.view(4, 5)]})
    assert read(data) == read(data.replace(MARKS, PARTED))


@long
def test_a_tensor_with_any_other_byte_is_read_or_refused_as_opcode_by_opcode() -> None:
    data = pickle_of({f"layer.{number}": torch.ones(2, 300) for number in range(50)})
    start = data.rindex(MARKS)
    end = dense.TENSOR.match(data, start).end()  # type: ignore[union-attr]  # the last tensor is read at once
    outcomes = set()
    for position in range(start + len(MARKS), end):
        others = [data[position] ^ 1, 0, 255, ord("K"), 1, data[position] + 1 & 255, ord("("), ord("h"), ord("t")]
        for byte in some(others, 3):
            at_once = data[:position] + bytes([byte]) + data[position + 1 :]
            slowly = at_once[:start] + PARTED + at_once[start + len(MARKS) :]
            assert read(at_once) == read(slowly), (position - start, byte)
            outcomes.add(read(at_once)[0])
    assert outcomes == {"read", "refused"}


def test_an_error_names_the_opcode_that_was_refused() -> None:
    data = pickle_of({f"layer.{number}": torch.ones(2, 300) for number in range(50)})
    start = data.rindex(MARKS)
    end = dense.TENSOR.match(data, start).end()  # type: ignore[union-attr]  # the last tensor is read at once
    beyond = data[:start] + data[start:end].replace(b"K\x02M", b"K\x03M") + data[end:]
    with pytest.raises(RefusedCheckpoint, match="beyond the end of its storage '49'") as refused:
        parse(beyond, TorchHooks())
    assert refused.value.where == f"data.pkl, byte {end - len(b'r....')}"
