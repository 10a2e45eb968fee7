"""The reader of saves of torch.distributed.checkpoint: forms of their metadata, and what a manifest keeps of them."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorProperties

from app.formats.index import Index, index
from app.formats.manifest_json import decode, encode
from app.values.manifest import MIN_BLOB_SIZE, Manifest
from app.values.thinned import optimizer_blobs
from stateroom._upload.folder import FolderZip, files_in
from tests.deliver.planning import committed, load, served_file
from tests.formats.folders import folder
from tests.support.dcp_files import Save, grid, saved


def indexed(save: Save) -> Index:
    return index(memoryview(folder(save.contents())))


def training() -> Save:
    """Weights in halves, and the optimizer's state of them in quarters, each a blob."""
    save = Save()
    save.add_tensor("model.w", torch.randn(4_000, 4), grid((4_000, 4), ([2_000], [])), ("model", "w"))
    state = ("optimizer", "state", "w", "exp_avg")
    save.add_tensor(".".join(state), torch.randn(4_000, 4), grid((4_000, 4), ([2_000], [2])), state)
    save.add_value("optimizer.param_groups.0.lr", 0.1, ("optimizer", "param_groups", 0, "lr"))
    save.add_value("epoch", 7)
    return save


def test_a_manifest_survives_its_encoding_and_says_that_it_has_assembled_storages() -> None:
    manifest = indexed(training()).manifest
    assert len(manifest.assembled) == 2
    assert [each.is_in_order for each in manifest.assembled] == [True, False]
    assert decode(encode(manifest)) == manifest


def test_a_storage_behind_the_file_has_its_place_in_no_listing_of_its_bytes() -> None:
    manifest = indexed(training()).manifest
    assert all(storage.span.end <= manifest.size for storage in manifest.storages)
    assert [each.storage.span.start >= manifest.size for each in manifest.assembled] == [True, True]
    for tensor in manifest.tensors:
        assert tensor.storage is not None
        assert manifest.storage(tensor.storage).span.length == tensor.nbytes
        assert sum(manifest.storages[one].span.length for one in manifest.stored_in(tensor.storage)) == tensor.nbytes


def test_thinning_removes_the_chunks_of_optimizers_alone() -> None:
    manifest: Manifest = committed(indexed(training()).manifest)
    quarters = manifest.assembled[1].chunks
    assert set(optimizer_blobs(manifest)) == {manifest.storages[chunk.storage].digest for chunk in quarters}


def test_a_chunk_that_an_optimizer_and_a_model_share_stays() -> None:
    manifest = committed(indexed(training()).manifest)
    weights, quarters = manifest.assembled
    shared = replace(quarters, chunks=(*quarters.chunks[:3], replace(weights.chunks[0])))
    kept = optimizer_blobs(replace(manifest, assembled=(weights, shared)))
    assert len(kept) == 3


def test_a_save_of_many_items_is_read() -> None:
    """A short pickle costs no more work than it has bytes."""
    save, item = Save(), saved(torch.ones(2))
    for number in range(3_000):
        key = f"state.{number}.step"
        save.add_tensor(key, torch.ones(2), path=("optimizer", "state", number, "step")) if number == 0 else None
        save.metadata.state_dict_metadata[key] = save.metadata.state_dict_metadata["state.0.step"]
        save.metadata.planner_data[key] = ("optimizer", "state", number, "step")
        if number:
            save.add_item(MetadataIndex(key, torch.Size([0]), 0), item)
    assert len(indexed(save).manifest.tensors) == 3_000


def as_dict_state(save: Save) -> None:
    """Give properties a ``__dict__``, as a class without ``__getstate__`` has it."""
    for described in save.metadata.state_dict_metadata.values():
        if hasattr(described, "properties"):
            described.properties = _Plain(described.properties.dtype)


class _Plain:
    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


def without_transforms(save: Save) -> None:
    for info in save.metadata.storage_data.values():
        info.__dict__.pop("transform_descriptors", None)


def without_hints(save: Save) -> None:
    save.metadata.storage_data = {replace(k, index=None): v for k, v in save.metadata.storage_data.items()}


OLDER: dict[str, Callable[[Save], object]] = {
    "properties with a __dict__": as_dict_state,
    "no transform_descriptors": without_transforms,
    "no hints": without_hints,
    "no version, no storage_meta": lambda save: [
        save.metadata.__dict__.pop(n, None) for n in ("version", "storage_meta")
    ],
    "a class of one's own": lambda save: setattr(save, "metadata", _Own(save.metadata)),
}


class _Own:
    def __init__(self, metadata: object) -> None:
        self.__dict__.update(vars(metadata))


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("form", OLDER)
def test_metadata_is_known_by_its_fields(form: str, protocol: int) -> None:
    save = training()
    OLDER[form](save)
    files = {**save.contents(), ".metadata": pickle.dumps(save.metadata, protocol)}
    found = index(memoryview(folder(files)))
    assert [component.name for component in found.manifest.components] == ["model", "optimizer"]
    assert found.facts.epoch == 7


def test_without_planner_data_the_keys_are_flat() -> None:
    save = Save()
    save.add_tensor("a.b", torch.arange(3.0), path=("a", "b"))
    save.metadata.planner_data = None
    assert list(load(served_file(folder(save.contents())))) == ["a.b"]


def test_a_value_with_tensors_keeps_them() -> None:
    save = Save()
    value = {"x": torch.arange(MIN_BLOB_SIZE, dtype=torch.uint8), "y": [torch.ones(2), "text"]}
    save.add_value("extra", value)
    save.add_tensor("w", torch.zeros(2))
    found = load(served_file(folder(save.contents())))
    assert torch.equal(found["extra"]["x"], value["x"])
    assert found["extra"]["y"][1] == "text"


def test_a_name_that_torch_does_not_write_is_unsafe() -> None:
    save = training()
    save.metadata.planner_data["epoch"] = ("epoch",)
    save.metadata.storage_meta = TensorProperties  # a class, by name
    assert indexed(save).manifest.unsafe_globals == ()
    save.metadata.storage_meta = print
    assert indexed(save).manifest.unsafe_globals == ("builtins.print",)


def test_the_client_splits_a_folder_as_the_server_does(tmp_path: Path) -> None:
    """It reads no pickle: it finds the items from the last to the first, by the ends of their zips."""
    written = training().write(tmp_path / "save")
    (written / "__9_0.distcp").write_bytes(bytes(5_000))  # of an earlier save: no metadata names it
    zipped = FolderZip(files_in(written), 1)
    manifest = index(zipped.read()).manifest
    spans = sorted(storage.span for storage in manifest.storages if storage.span.length > MIN_BLOB_SIZE)
    assert zipped.storages == [(span.start, span.end) for span in spans]
    assert len(spans) == 2 + 4 + 1
