"""Checkpoints that hold values of every kind."""

import argparse
import collections
import functools
import pathlib
import random
from typing import Any

import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5)
        self.norm = nn.BatchNorm2d(6)
        self.tied = self.conv
        self.register_buffer("mask", torch.tensor([True, False]))


class Custom:
    def __init__(self) -> None:
        self.values = [1, (2, 3)]
        self.me = self

    class Nested:
        pass


class Subclass(torch.Tensor):
    pass


def general_checkpoint() -> dict[str, Any]:
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    net.norm(net.conv(torch.rand(2, 3, 8, 8))).sum().backward()
    optimizer.step()
    schedulers = [torch.optim.lr_scheduler.StepLR(optimizer, 3), torch.optim.lr_scheduler.OneCycleLR(optimizer, 1, 10)]
    return {
        "epoch": 3,
        "loss": 0.25,
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "schedulers": [scheduler.state_dict() for scheduler in schedulers],
        "rng": {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": np.random.get_state()},
        "best": torch.tensor(0.5),
    }


def shared_views() -> dict[str, Any]:
    base = torch.arange(100.0)
    raw = torch.arange(8, dtype=torch.uint8)
    matrix = base.view(10, 10)
    return {
        "base": base,
        "again": base,
        "row": matrix[3],
        "column": matrix[:, 4],
        "transposed": matrix.t(),
        "every_other": base[::2],
        "expanded": base[:1].expand(1000, 1000),
        "empty": base[100:],
        "storage": raw.untyped_storage(),
        "typed": matrix.storage(),
        "bytes": raw[2:],
    }


def dtypes() -> dict[str, Any]:
    plain = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex128 complex64 complex32"
    new = "uint16 uint32 uint64 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
    return {name: torch.arange(4).to(getattr(torch, name)) for name in (plain + " " + new).split()} | {
        f"dtype of {name}": getattr(torch, name) for name in (plain + " " + new).split()
    }


def kinds_of_tensors() -> dict[str, Any]:
    attributed = torch.ones(3)
    attributed.note = "hello"
    parameter = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    stateful = nn.Parameter(torch.ones(2))
    stateful.tag = [1]
    subclass = torch.arange(6.0).view(2, 3).as_subclass(Subclass)
    subclass.extra = {"a": torch.ones(1)}
    return {
        "parameter": parameter,
        "stateful": stateful,
        "attributed": attributed,
        "subclass": subclass,
        "same subclass": subclass,
        "view of it": subclass[1],
        "grad": torch.ones(2, requires_grad=True),
        "conj": torch.ones(2, dtype=torch.complex64).conj(),
        "neg": torch.ones(2, dtype=torch.complex64).conj().imag,
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "meta": torch.empty(2, 3, device="meta"),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 2, torch.qint8),
        "per channel": torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.quint8),
        "zero-dim": torch.tensor(4),
        "empty": torch.zeros(0, 5),
        "7 dimensions": torch.ones(1, 2, 1, 2, 1, 2, 1),
    }


def python_values() -> dict[str, Any]:
    shared = [1]
    return {
        "numpy scalar": np.float64(1.5),
        "numpy array": np.arange(6).reshape(2, 3),
        "numpy dtype": np.dtype("float32"),
        "structured": np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]),
        "numpy of objects": np.array([{"a": shared}, None], dtype=object),
        "defaultdict": collections.defaultdict(list, a=shared),
        "counter": collections.Counter("abca"),
        "deque": collections.deque([1, 2], maxlen=4),
        "namespace": argparse.Namespace(lr=0.1, layers=[1, 2]),
        "path": pathlib.PurePosixPath("a/b"),
        "frozenset": frozenset({1, 2}),
        "set": {1},
        "slice": slice(1, None, 2),
        "range": range(3),
        "complex": 1 - 2j,
        "big": [2**31, -(2**31) - 1, 2**63, 2**2000, -(2**3000)],
        "text": "ünï\ud800",
        "bytes": b"\x00\xff" * 100,
        "no bytes": b"",
        "bytearray": bytearray(b"abc"),
        "shared": [shared, shared],
        "size": torch.Size([1, 2]),
        "device": torch.device("cuda:3"),
        "partial": functools.partial(int, base=2),
        "class": Custom.Nested,
        "function": torch.nn.functional.relu,
        "floats": [0.0, -0.0, 1e-320, float("inf"), float("nan")],
        "none": None,
        (1, "tuple"): "key",
    }
