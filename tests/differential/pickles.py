"""Damage to the pickle alone, in an otherwise valid file: no CRC32 and no size reveals it."""

import collections
import io
import warnings
import zipfile
from collections.abc import Mapping
from functools import cache
from random import Random

import torch

from tests.deliver.planning import save
from tests.differential.damage import damaged_anywhere
from tests.differential.mutations import honest
from tests.formats.zips import Entry, Zip


def _peculiar() -> dict[str, torch.Tensor]:
    """A state_dict of all that torch makes tensors of."""
    one, other = torch.ones(2, dtype=torch.complex64), torch.ones(2, dtype=torch.complex64)
    noted = torch.nn.Parameter(torch.ones(3))
    noted.note = "x"
    scales, points = torch.ones(2) / 3, torch.zeros(2, dtype=torch.int64)
    return collections.OrderedDict(
        quantized=torch.quantize_per_tensor(torch.ones(2, 3), 0.5, 3, torch.qint8),
        channels=torch.quantize_per_channel(torch.ones(2, 3), scales, points, 0, torch.quint8),
        coo=torch.eye(3).to_sparse(),
        csr=torch.eye(3).to_sparse_csr(),
        meta=torch.empty(2, device="meta"),
        conj=one.conj(),
        neg=other.conj().imag,
        noted=noted,
        parameter=torch.nn.Parameter(torch.ones(2)),
        float8=torch.ones(3).to(torch.float8_e5m2),
        uint16=torch.ones(2, dtype=torch.uint16),
        grad=torch.ones(2, requires_grad=True),
    )


def _values() -> dict[str, object]:
    """A state_dict with all that torch allows beside tensors."""
    return {
        "weight": torch.ones(2),
        "x_extra_state": {
            "set": {1, 2, "a"},
            "bytes": b"bytes",
            "bytearray": bytearray(b"xx"),
            "counter": collections.Counter("aab"),
            "ordered": collections.OrderedDict(a=1),
            "size": torch.Size([1, 2]),
            "device": torch.device("cuda:1"),
            "dtype": torch.float16,
            "complex": 1j,
            "large": 2**70,
            "layout": torch.strided,
            "qscheme": torch.per_tensor_affine,
            ("a", 1): (1, 2, (3,)),
            3.5: [1, [2], None],
        },
    }


def _optimizer() -> dict[str, object]:
    state = {0: {"step": torch.tensor(1.0), "set": {1, 2}}, (1, "a"): {"x": bytearray(b"1")}}
    return {"state": state, "param_groups": [{"params": [0], "lr": 0.1, "betas": (0.9, 0.99), "b": b"x"}]}


@cache
def _wholes() -> Mapping[str, bytes]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sparse and quantized tensors
        return {
            **{name: file for name, file in honest().items() if name != "script"},
            "peculiar": save({"model": _peculiar()}),
            "values": save({"model": _values()}),
            "legacy values": save(_values(), _use_new_zipfile_serialization=False),
            "values of protocol 4": save({"model": _values()}, pickle_protocol=4),
            "optimizer": save({"optimizer": _optimizer()}),
        }


def damaged_pickle(seed: int) -> tuple[str, bytes]:
    """The ``seed``-th such file, and the name of what it was."""
    random = Random(seed)
    name, whole = random.choice(list(_wholes().items()))
    times = random.choice((1, 1, 1, 2, 2, 3, 4))
    if not zipfile.is_zipfile(io.BytesIO(whole)):
        return name, damaged_anywhere(whole, times, random)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        records = {entry.partition("/")[2]: archive.read(entry) for entry in archive.namelist()}
    pickle = damaged_anywhere(records.pop("data.pkl"), times, random)
    entries = [Entry(b"archive/data.pkl", pickle, crc32=0)]
    for record, data in records.items():
        if record not in {".format_version", ".storage_alignment"}:
            entries.append(Entry(f"archive/{record}".encode(), data, flags=0x0808 if data else 0x0800))
    return name, Zip(entries).build()
