"""The other downloads of a file: other formats, dtypes and devices of each of its components."""

import io
from typing import Any

import safetensors
import torch

from app.deliver.plan import Wanted
from app.errors import StateroomError
from app.select.query import StateDictQuery
from app.values.manifest import Manifest
from tests.deliver.planning import materialise, planned

MOST_COMPONENTS = 4
LARGEST = 1_000_000
"""Bytes: an expanded tensor of a few bytes may be asked for in full."""

WAYS: tuple[dict[str, Any], ...] = (
    {"format": "safetensors"},
    {"format": "safetensors", "dtype": "bfloat16"},
    {"dtype": "float16"},
    {"device": "meta"},
    {"add_prefix": "a."},
)


def serve_other_ways(data: bytes, manifest: Manifest) -> None:
    """Raises what nobody has foreseen: each is refused by name, or served as a file that its format's reader opens."""
    for component in manifest.components[:MOST_COMPONENTS]:
        for way in WAYS:
            try:
                plan = planned(data, Wanted(query=StateDictQuery(component=component.name, **way)))
                made = materialise(plan, data) if plan.file.size <= LARGEST else None
            except StateroomError:
                continue
            if made is not None and way.get("format") == "safetensors":
                safetensors.deserialize(made)
            elif made is not None:
                torch._C.PyTorchFileReader(io.BytesIO(made))
