"""The reader of folders: the tree of each combination of files, and the writer that a form's files go through."""

import io
import random
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors
from torch import nn

from app.errors import BadFolder, NoTensors, RefusedCheckpoint
from app.formats.folder.write import FolderWriter
from app.formats.index import index
from app.formats.manifest_json import decode, encode
from app.values.folder import PathRules, check_path, is_checkpoint_name
from tests.deliver.planning import load, save, served_file, served_state_dict
from tests.differential.equality import same
from tests.formats.folders import folder

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

A, B = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}, {"b.weight": torch.zeros(2000)}


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 1)), buffer)
    return buffer.getvalue()


def legacy(obj: object) -> bytes:
    return save(obj, _use_new_zipfile_serialization=False)


def big_endian(obj: Mapping[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO(save(obj))
    with zipfile.ZipFile(buffer) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    return folder({name: b"big" if name.endswith("byteorder") else data for name, data in records.items()})


TREES: dict[str, tuple[dict[str, bytes], Any]] = {
    "one torch file": ({"model.pt": save(A), "config.json": b"{}"}, A),
    "one safetensors file": ({"deep/down/model.safetensors": save_safetensors(A), "README.md": b""}, A),
    "one general checkpoint": ({"last.ckpt": save({"epoch": 3, "net": A})}, {"epoch": 3, "net": A}),
    "several formats": (
        {"a.pt": save(A), "b.bin": legacy(B), "c.safetensors": save_safetensors(A)},
        {"a": A, "b": B, "c": A},
    ),
    "folders": (
        {"unet/model.safetensors": save_safetensors(A), "vae/model.safetensors": save_safetensors(B)},
        {"unet/model": A, "vae/model": B},
    ),
    "one name in two formats": ({"model.pt": save(A), "model.bin": save(B)}, {"model.pt": A, "model.bin": B}),
    "shards and an optimizer": (
        {
            "model-00001-of-00002.bin": save(A),
            "model-00002-of-00002.bin": save(B),
            "optimizer.pt": save({"state": {}, "param_groups": [{"lr": 0.5}]}),
        },
        {"model": {**A, **B}, "optimizer": {"state": {}, "param_groups": [{"lr": 0.5}]}},
    ),
    "shards of both formats": (
        {
            "pytorch_model-00001-of-00001.bin": save(A),
            "model-00001-of-00001.safetensors": save_safetensors(B),
        },
        {"pytorch_model": A, "model": B},
    ),
    "no checkpoints but in name": (
        {
            "model.pt": save(A),
            "page.bin": b"<html>",
            "empty.pt": b"",
            "program.pt": b"PK\5\6" + bytes(18),
            "args.bin": save(Path("x")),
            "archive.tar": b"text",
        },
        A,
    ),
    "plain values beside": ({"model.pt": save(A), "scheduler.pt": save({"k": 1})}, {"model": A, "scheduler": {"k": 1}}),
    "shared tensors of each file": (
        {"a.pt": save({"x": A["a.bias"], "y": A["a.bias"]}), "b.pt": save({"x": B["b.weight"]})},
        {"a": {"x": A["a.bias"], "y": A["a.bias"]}, "b": {"x": B["b.weight"]}},
    ),
}


def in_order(tree: Any) -> Any:
    """Sort the keys of plain dicts: safetensors files, and files of a folder, are in the order of their names."""
    return {key: in_order(tree[key]) for key in sorted(tree)} if isinstance(tree, dict) else tree


@pytest.mark.parametrize("what", TREES)
def test_a_folder_has_the_tree_of_its_checkpoints(what: str) -> None:
    files, tree = TREES[what]
    data = folder(files)
    manifest = index(memoryview(data)).manifest
    assert [file.path for file in manifest.files] == sorted(files)
    for file in manifest.files:
        assert data[file.span.start : file.span.end] == files[file.path]
    assert decode(encode(manifest)) == manifest
    assert same(in_order(load(served_file(data))), in_order(tree))


def test_a_tie_within_a_file_stays_and_none_is_made_between_files() -> None:
    loaded = load(served_file(folder(TREES["shared tensors of each file"][0])))
    assert loaded["a"]["x"].data_ptr() == loaded["a"]["y"].data_ptr() != loaded["b"]["x"].data_ptr()


def test_a_program_in_a_folder_is_its_state_dict() -> None:
    data = folder({"program.pt": scripted(), "model.pt": save(A)})
    assert set(load(served_state_dict(data, component="program"))) == {"weight", "bias"}
    alone = index(memoryview(folder({"program.pt": scripted()}))).manifest
    assert [component.name for component in alone.components] == [""]


def test_shards_keep_the_versions_of_their_modules() -> None:
    shards = {}
    for number, name in enumerate(("a", "b"), start=1):
        state: Any = OrderedDict({f"{name}.weight": torch.ones(2)})
        state._metadata = OrderedDict({name: {"version": number}})
        shards[f"m-{number:05}-of-00002.pt"] = save(state)
    merged = load(served_state_dict(folder(shards)))
    assert list(merged) == ["a.weight", "b.weight"]
    assert dict(merged._metadata) == {"a": {"version": 1}, "b": {"version": 2}}


def test_metadata_that_all_shards_share_stays() -> None:
    parts = [save_safetensors({name: torch.ones(1)}, {"format": "pt", "n": name}) for name in "ab"]
    shards = {f"m-0000{number}-of-00002.safetensors": part for number, part in enumerate(parts, start=1)}
    assert index(memoryview(folder(shards))).manifest.metadata == {"format": "pt"}


def test_files_of_two_byte_orders_are_refused() -> None:
    with pytest.raises(BadFolder, match="big-endian"):
        index(memoryview(folder({"a.pt": save(A), "b.pt": big_endian(B)})))
    assert index(memoryview(folder({"b.pt": big_endian(B)}))).manifest.byteorder == "big"


def test_a_trainers_state_that_makes_no_sense_is_only_kept() -> None:
    for state in (b"{", b"[]", b'{"log_history": 3}', b'{"epoch": "x", "log_history": [1, {"loss": [1]}]}', b"\xff"):
        facts = index(memoryview(folder({"model.pt": save(A), "trainer_state.json": state}))).facts
        assert (facts.epoch, facts.step, facts.loss, facts.metrics) == (None, None, None, {})


def test_a_folder_of_plain_values_has_no_tensors() -> None:
    with pytest.raises(NoTensors):
        index(memoryview(folder({"a.pt": save({"k": 1}), "b.pt": save(Path("x"))})))


def test_a_number_of_a_tensor_counts_as_in_a_file_alone() -> None:
    data = folder({"x.txt": b"x" * 5000, "last.pt": save({"loss": torch.tensor(0.5), "epoch": 2, "net": A})})
    facts = index(memoryview(data)).facts
    assert (facts.epoch, facts.loss) == (2, 0.5)


files_of_a_form = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=300), st.lists(st.binary(max_size=300), max_size=3), max_size=4
)


@given(files_of_a_form)
def test_what_is_written_is_what_every_tool_unpacks(files: dict[str, list[bytes]]) -> None:
    """Paths that could not be kept are refused, the others come back as they were."""
    rules, writer, parts = PathRules(), FolderWriter(), []
    kept = {}
    for path, pieces in {**files, "model.pt": [save(A)]}.items():
        if is_checkpoint_name(path) and path != "model.pt":
            continue
        try:
            rules.check(path)
        except BadFolder:
            continue
        kept[path] = b"".join(pieces)
        parts.append(writer.begin(path))
        for piece in pieces:
            writer.add(piece)
            parts.append(piece)
        parts.append(writer.end())
    data = b"".join([*parts, writer.finish()])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == kept
    if "model.pt" in kept:
        found = index(memoryview(data)).manifest.files
        assert {file.path: data[file.span.start : file.span.end] for file in found} == kept
        assert all(file.span.start % 64 == 0 for file in found)


names = st.text(st.sampled_from("aAäÄß.\u017fs \u0308/\\:x"), min_size=1, max_size=6)


@given(st.lists(names, max_size=8))
def test_accepted_paths_lie_side_by_side_below_any_folder(tmp_path_factory: pytest.TempPathFactory, paths: list[str]):
    rules, accepted = PathRules(), []
    for path in paths:
        try:
            rules.check(path)
        except BadFolder:
            continue
        accepted.append(path)
    root = tmp_path_factory.mktemp("folder")
    for path in accepted:
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(path)
        assert place.resolve().is_relative_to(root.resolve())
    assert {each.relative_to(root).as_posix() for each in root.rglob("*") if each.is_file()} == set(accepted)
    assert len({path.casefold() for path in accepted}) == len(accepted)


@pytest.mark.parametrize(
    "path", ["a", "model-00001-of-00003.safetensors", ".gitattributes", "深/い/ファイル", "a b/c-d_e", "COM", "x" * 255]
)
def test_usual_paths_are_plain(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_folder_is_refused_or_read_and_never_an_error(seed: int) -> None:
    whole = folder(TREES["shards and an optimizer"][0] | {"trainer_state.json": b'{"epoch": 1}'})
    chance = random.Random(seed)
    for _ in range(20):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            index(memoryview(bytes(data)))
        except RefusedCheckpoint:
            continue
