"""Folders of files that are one checkpoint, and forms that upload them."""

import json
from collections.abc import Mapping

import torch
from safetensors.torch import save as save_safetensors

Files = Mapping[str, bytes]


def shards() -> dict[str, bytes]:
    """A state_dict in two shards, with a config and a tokenizer that is large enough for a blob of its own."""
    return {
        "config.json": b'{"hidden_size": 64}',
        "model-00001-of-00002.safetensors": save_safetensors({"a": torch.arange(4_000.0)}, {"format": "pt"}),
        "model-00002-of-00002.safetensors": save_safetensors({"b": torch.ones(3)}, {"format": "pt"}),
        "model.safetensors.index.json": index(a="model-00001-of-00002", b="model-00002-of-00002"),
        "tokenizer/vocab.json": b'{"word": 1}' * 1_000,
    }


def index(**shard_of: str) -> bytes:
    return json.dumps({"weight_map": {key: f"{name}.safetensors" for key, name in shard_of.items()}}).encode()


def form(files: Files) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (path, data)) for path, data in files.items()]
