"""Folders are stored, shared, swept and checked like any other checkpoint."""

import torch
from safetensors.torch import save

from tests.formats.folders import folder
from tests.ingest.workplace import Workplace, weights
from tests.upkeep.sweeping import check, delete, sweep_now


def files(seed: int) -> dict[str, bytes]:
    return {
        "config.json": b"{}",
        "model-00001-of-00002.safetensors": save({"frozen": weights(0)}),
        "model-00002-of-00002.safetensors": save({"head": weights(seed), "bias": torch.ones(3)}),
        "tokenizer.json": b"t" * 2_000_000,
    }


def test_what_folders_share_stays_until_the_last_of_them_is_swept(place: Workplace) -> None:
    first = place.upload(folder(files(1)))
    second = place.upload(folder(files(2)))
    assert first.new_bytes > 4_000_000
    assert 2**20 < second.new_bytes < 2.2 * 2**20, "the head, not the frozen tensor, and not the tokenizer"
    assert check(place) == []
    delete(place, first.version)
    sweep_now(place)
    assert check(place) == []
    assert place.original(second) == folder(files(2))
    delete(place, second.version)
    sweep_now(place)
    assert check(place) == []
    assert place.bytes_stored() == 0
