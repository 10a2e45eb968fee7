"""The files that fuzzing starts from: minimal honest files, and the small files of the hostile corpus."""

import warnings
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import safetensors.torch
import torch

from tests.deliver.planning import save
from tests.differential.mutations import honest
from tests.formats.kinds_of_tensors import LISTED, NOT_LISTED
from tests.fuzz.containers import zip_of
from tests.hostile.corpus import CLASSES

MAX_SIZE = 3000
"""Bytes: what is longer is read too seldom."""

_HOSTILE_MAX_SIZE = 1200


def seeds() -> Iterator[bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized, sparse and complex32 tensors all come with warnings
        for data in (*honest().values(), *_objects()):
            made = zip_of(data)
            small = made.build() if made else data
            if len(small) <= MAX_SIZE:
                yield small
        for make in (LISTED | NOT_LISTED).values():
            yield from _both({"x": make()})
    yield from _safetensors()
    for name, files in CLASSES.items():
        if name in {"cut and flipped", "pickle: bombs"}:
            continue  # the one libFuzzer does by itself, the other only takes its time
        yield from (file.data for file in files() if len(file.data) <= _HOSTILE_MAX_SIZE)


def _objects() -> Iterator[bytes]:
    weight = torch.ones(2, 2)
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    for obj in (
        {"w": weight},
        {"epoch": 3, "loss": 0.5, "model_state_dict": OrderedDict(w=weight, v=weight[1])},
        {"optimizer": optimizer.state_dict(), "step": torch.tensor(7)},
        [weight, (weight.t(), {1: None, "a.b": b"\0"}), {"s": {1, 2}, "d": torch.device("cpu"), "t": torch.float16}],
        {"w": weight, "n": np.float64(0.5), "a": np.ones(2), "big": 1 << 70, "c": complex(1, 2)},
        {"p": parameter, "w": torch.ones(2, requires_grad=True)},
        torch.nn.Linear(1, 1, bias=False),
    ):
        yield from _both(obj)


def _both(obj: object) -> Iterator[bytes]:
    """A file of each of torch's formats, the zip without its padding; none of a format that cannot have it."""
    for options in ({}, {"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False}):
        data = save(obj, **options)
        made = zip_of(data)
        yield made.build() if made else data


def _safetensors() -> Iterator[bytes]:
    yield safetensors.torch.save({"w": torch.ones(2)})
    yield safetensors.torch.save({"a": torch.ones(2), "b": torch.ones(2, 1).half()}, {"format": "pt", "epoch": "3"})
