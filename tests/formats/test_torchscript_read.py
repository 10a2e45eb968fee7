"""TorchScript archives: their state_dict is the one that ``torch.jit.load`` gives; their code is never compiled."""

import io
import zipfile
import zlib
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization import default_qconfig
from torch.ao.quantization.quantize_jit import quantize_jit

from app.errors import NotACheckpoint, NoTensors, RefusedCheckpoint
from app.formats.index import index
from app.formats.manifest_json import decode, encode
from app.formats.readers import read
from tests.deliver.planning import load, served_state_dict
from tests.formats.torch_files import records, saved
from tests.formats.zips import Entry, Zip

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated; files of it exist


class Block(nn.Module):
    """Buffers before parameters, plain tensors beside them, something shared, something absent."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("first", torch.arange(3.0))
        self.register_buffer("fleeting", torch.ones(2), persistent=False)
        self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.register_parameter("bias", None)
        self.plain = torch.full((4,), 7.0)
        self.linear = nn.Linear(3, 3)
        self.again = self.linear
        self.norm = nn.BatchNorm1d(3)
        self.list = nn.ModuleList([nn.Linear(3, 3), nn.ReLU()])
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.linear.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.list:
            x = layer(x)
        x = self.norm(self.again(self.linear(x))) + self.tied(x)
        return (x * self.weight.sum() + self.first + self.plain.sum() + self.fleeting.sum()).float()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2)
        self.embedding = nn.Embedding(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(self.embedding(x))[0]


class Quantized(nn.Module):
    """A float head on a body that was quantized in graph mode, whose packed weights have a name with a dot."""

    def __init__(self) -> None:
        super().__init__()
        images = torch.randn(1, 3, 8, 8)
        body = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3)).eval())
        self.body = quantize_jit(body, {"": default_qconfig}, lambda module, data: module(data), [images])
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


PROGRAMS = {
    "quantized in graph mode": lambda: torch.jit.script(Quantized().eval()),
    "scripted": lambda: torch.jit.script(Block().eval()),
    "traced": lambda: torch.jit.trace(Block().eval(), torch.ones(2, 3)),
    "scripted LSTM": lambda: torch.jit.script(Recurrent()),
    "traced LSTM": lambda: torch.jit.trace(Recurrent(), torch.zeros(2, 2, dtype=torch.int64)),
    "linear": lambda: torch.jit.script(nn.Linear(2, 2)),
    "sequential": lambda: torch.jit.script(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2)))),
}


def program(module: Any, **extra: Any) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer, **extra)
    return buffer.getvalue()


@pytest.mark.parametrize("make", PROGRAMS.values(), ids=PROGRAMS)
def test_its_state_dict_is_the_programs_own(make: Any) -> None:
    file = program(make())
    want = torch.jit.load(io.BytesIO(file)).state_dict()
    found = index(memoryview(file)).manifest
    assert found.format == "torchscript"
    assert [(c.name, c.kind, c.keys) for c in found.components] == [("", "state_dict", len(want))]
    assert [tensor.key for tensor in found.tensors] == list(want)
    assert decode(encode(found)) == found
    served = load(served_state_dict(file))
    assert list(served) == list(want)
    for key, tensor in want.items():
        have = served[key]
        assert (have.dtype, have.shape, have.stride(), have.requires_grad) == (
            tensor.dtype, tensor.shape, tensor.stride(), tensor.requires_grad,
        )  # fmt: skip
        assert torch.equal(have, tensor)


def test_it_loads_into_the_module_it_was_made_of() -> None:
    module = Block().eval()
    module.fleeting.fill_(3)
    served = load(served_state_dict(program(torch.jit.script(module)), exclude=("fleeting",)))
    again = Block().eval()
    again.fleeting.fill_(3)
    again.load_state_dict(served, strict=True)
    assert torch.equal(again(torch.ones(2, 3)), module(torch.ones(2, 3)))


def test_tied_weights_stay_tied() -> None:
    served = load(served_state_dict(program(torch.jit.script(Block()))))
    assert served["tied.weight"].data_ptr() == served["linear.weight"].data_ptr() == served["again.weight"].data_ptr()


def test_extra_files_do_not_matter() -> None:
    file = program(torch.jit.script(nn.Linear(2, 2)), _extra_files={"notes.txt": "hello", "deep/er.json": "{}"})
    assert list(load(served_state_dict(file))) == ["weight", "bias"]


def test_a_program_with_its_weights_frozen_into_its_code_has_no_state_dict() -> None:
    with pytest.raises(NoTensors):
        index(memoryview(program(torch.jit.freeze(torch.jit.script(nn.Linear(2, 2).eval())))))


def remade(file: bytes, **changes: bytes | None) -> bytes:
    """The same records, stored, with some of them replaced, by the end of their names."""
    entries = []
    for name, data in records(file).items():
        new = next((value for end, value in changes.items() if name.endswith(end)), data)
        if new is not None:
            entries.append(Entry(b"archive/" + name.encode(), new, flags=0x0808 if new else 0x0800))
    return Zip(entries).build()


def test_text_that_is_stored_is_read_like_text_that_is_deflated() -> None:
    file = program(torch.jit.script(Block()))
    assert list(load(served_state_dict(remade(file)))) == list(load(served_state_dict(file)))


def test_before_torch_1_5_every_other_tensor_was_a_buffer() -> None:
    class OldNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))
            self.register_buffer("mean", torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight + self.mean

    file = program(torch.jit.script(OldNorm()))
    name = next(name for name in records(file) if name.endswith(".py"))
    text = records(file)[name].replace(b'  __buffers__ = ["mean", ]\n', b"")
    assert list(load(served_state_dict(remade(file, **{name: text})))) == ["weight", "mean"]


def code_of(file: bytes, module: str) -> str:
    """The record with the text of a torch.nn module, which may have a number of its own."""
    return next(name for name in records(file) if f"/modules/{module}" in name and name.endswith(".py"))


def deflated(file: bytes, text: bytes, *, size: int | None = None, packed: bytes | None = None) -> bytes:
    """The archive with its code replaced by ``text``, deflated, and said to have ``size`` bytes."""
    entries = []
    for name, data in records(file).items():
        if name == code_of(file, "linear"):
            raw = zlib.compressobj(9, zlib.DEFLATED, -15)
            squeezed = packed if packed is not None else raw.compress(text) + raw.flush()
            length = len(text) if size is None else size
            entries.append(
                Entry(
                    b"archive/" + name.encode(), squeezed, method=8, flags=0x0800, crc32=zlib.crc32(text),
                    central={"size": length},
                )
            )  # fmt: skip
        else:
            entries.append(Entry(b"archive/" + name.encode(), data, flags=0x0808 if data else 0x0800))
    return Zip(entries).build()


def refusal(file: bytes) -> RefusedCheckpoint:
    with pytest.raises(RefusedCheckpoint) as refused:
        index(memoryview(file))
    return refused.value


def test_damaged_or_endless_code_is_refused() -> None:
    file = program(torch.jit.script(nn.Linear(2, 2)))
    text = records(file)[code_of(file, "linear")]
    assert list(load(served_state_dict(deflated(file, text)))) == ["weight", "bias"]
    assert refusal(deflated(file, text, size=len(text) - 1)).rule == "zip-deflated"
    assert refusal(deflated(file, text, size=len(text) + 1)).rule == "zip-deflated"
    assert refusal(deflated(file, text, packed=b"\xff" * 20)).rule == "zip-deflated"
    assert refusal(deflated(file, b"#" * (16 * 1024 * 1024 + 1))).rule == "code-size"
    assert refusal(deflated(file, b"\xff\xff")).rule == "utf-8"


def test_only_code_may_be_deflated() -> None:
    file = program(torch.jit.script(nn.Linear(2, 2)))
    for source, extra in ((file, {}), (saved({"w": torch.ones(2)}), {"code/x.py": b"text"})):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in {**records(source), **extra}.items():
                packed = name.startswith("data/") if source is file else name.startswith("code/")
                archive.writestr(f"archive/{name}", data, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)
        error = refusal(buffer.getvalue())
        assert isinstance(error, NotACheckpoint)
        assert error.rule == "zip-deflated"


def test_names_under_which_two_tensors_could_be_found_are_refused() -> None:
    file = program(torch.jit.script(nn.Sequential(nn.Linear(2, 2))))
    pickle = records(file)["data.pkl"]
    dotted = pickle.replace(b"X\x04\x00\x00\x00bias", b"X\x04\x00\x00\x00b.as")
    twice = pickle.replace(b"X\x04\x00\x00\x00bias", b"X\x06\x00\x00\x00weight")
    assert pickle not in {dotted, twice}
    code = code_of(file, "linear")
    text = records(file)[code]
    for forged, program_text in ((dotted, text.replace(b'"bias"', b'"b.as"')), (twice, text)):
        assert refusal(remade(file, **{"data.pkl": forged, code: program_text})).rule == "torchscript-names"


def test_classes_that_the_code_does_not_have_give_no_keys() -> None:
    file = program(torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))))
    without = remade(file, **{code_of(file, "linear"): b""})
    assert all(key.startswith("1.") for key in load(served_state_dict(without)))


def test_its_names_are_reported() -> None:
    names = read(memoryview(program(torch.jit.script(nn.Linear(2, 2))))).unsafe_globals
    assert [name.startswith("__torch__.torch.nn.modules.linear.") for name in names] == [True]
