"""Folders of torch.distributed.checkpoint through a real server: each part of them is what torch itself reads."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load as load_safetensors

from stateroom import Client, Model
from stateroom.archive import import_folder
from stateroom.integrations.dcp import StateroomReader
from tests.formats.folders import folder as folder_zip
from tests.functional.torch_files import loaded, same
from tests.functional.torch_files import saved as saved_file
from tests.support.dcp_files import Save, grid
from tests.support.distributed import LARGE, network, whole, write_sharded, write_trained
from tests.support.folders import form
from tests.support.measure import long, measure

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is:UserWarning")


@dataclass(frozen=True)
class Saved:
    """A folder, and what torch reads of it."""

    folder: Path
    state: Mapping[str, Any]


@pytest.fixture(scope="session")
def saves(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Saved]:
    """Folders of one to four processes."""
    scratch = tmp_path_factory.mktemp("distributed")
    folders = [write_trained(scratch / f"trained-{ranks}", ranks, scratch) for ranks in (1, 2, 3)]
    folders.append(write_sharded(scratch / "sharded", scratch))
    return {folder.name: Saved(folder, whole(folder, scratch)) for folder in folders}


@pytest.fixture
def client(http: httpx.Client) -> Client:
    return Client(str(http.base_url))


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


@pytest.fixture
def sharded(saves: Mapping[str, Saved]) -> Saved:
    return saves["sharded"]


def downloaded(http: httpx.Client, model: Model, what: str, **params: Any) -> bytes:
    answer = http.get(f"/v1/models/{model.name}/checkpoints/latest/{what}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.content


def by_name(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(sorted(tensors.items()))


def contents(folder: Path) -> dict[str, bytes]:
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@long
@pytest.mark.parametrize("name", measure(["trained-1", "sharded"], ["trained-1", "trained-2", "trained-3", "sharded"]))
def test_a_folder_is_the_state_dict_that_was_saved(
    name: str, saves: Mapping[str, Saved], http: httpx.Client, model: Model, tmp_path: Path
) -> None:
    folder, state = saves[name].folder, saves[name].state
    checkpoint = model.upload(folder)
    assert (checkpoint.format, checkpoint.epoch, checkpoint.loss) == ("folder", state["epoch"], state["loss"])
    assert same(model.load("latest"), state)
    assert same(loaded(downloaded(http, model, "file")), state)
    for component in {"model", "optimizer"} & state.keys():
        assert same(dict(loaded(downloaded(http, model, "state_dict", component=component))), state[component])
    model.download("latest", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder)


def test_a_downloaded_folder_is_loaded_by_torch(saves: Mapping[str, Saved], model: Model, tmp_path: Path) -> None:
    model.upload(saves["trained-3"].folder)
    model.download("latest", tmp_path / "back")
    net = network()
    state = {"model": net.state_dict(), "epoch": 0}
    dcp.load(state, checkpoint_id=tmp_path / "back", no_dist=True)
    assert state["epoch"] == 5
    assert same(dict(net.state_dict()), saves["trained-3"].state["model"])


def cut_at_random(seed: int) -> Save:
    """Write tensors of one to four dimensions, of all sizes of elements, cut anywhere in each dimension."""
    save, chance = Save(), random.Random(seed)
    for number in range(60):
        dtype = chance.choice([torch.uint8, torch.bfloat16, torch.float32, torch.int64, torch.complex128])
        shape = [chance.choice([1, 2, 3, 7, 16, 40]) for _ in range(chance.randrange(5))]
        tensor = torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(number)).to(dtype)
        cuts = [chance.sample(range(1, size), chance.randrange(min(size, 4))) for size in shape]
        boxes = grid(shape, cuts)
        chance.shuffle(boxes)
        if len(shape) > 1 and number % 3 == 0:
            tensor = tensor.transpose(0, 1).contiguous().transpose(0, 1)
        save.add_tensor(f"t{number}", tensor, boxes, as_it_is=number % 2 == 0)
    return save


@long
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
@pytest.mark.parametrize("seed", measure([1], [1, 2]))
def test_tensors_that_are_cut_anywhere_are_whole_again(
    seed: int, http: httpx.Client, model: Model, tmp_path: Path
) -> None:
    folder = cut_at_random(seed).write(tmp_path / "cut")
    expected = whole(folder, tmp_path)
    model.upload(folder)
    assert same(model.load("latest"), expected)
    found = load_safetensors(downloaded(http, model, "state_dict", format="safetensors", exclude=complex_in(expected)))
    assert same(by_name(found), by_name({k: v for k, v in expected.items() if v.dtype != torch.complex128}))
    cast = loaded(downloaded(http, model, "state_dict", dtype="float16"))
    assert same(dict(cast), {k: v.half() if v.is_floating_point() else v for k, v in expected.items()})
    for key, tensor in expected.items():
        if tensor.dim() and len(tensor) > 2:
            assert same(model.tensor("latest", key, rows=slice(1, -1)), tensor[1:-1].clone())


def complex_in(state: Mapping[str, torch.Tensor]) -> list[str]:
    return [key for key, tensor in state.items() if tensor.dtype == torch.complex128]


def test_every_tensor_is_sliced_cast_and_filtered(sharded: Saved, http: httpx.Client, model: Model) -> None:
    model.upload(sharded.folder)
    tensors = sharded.state["model"]
    for key, tensor in tensors.items():
        if tensor.dim() and len(tensor) > 1:
            assert same(model.tensor("latest", key, rows=slice(1, len(tensor)), component="model"), tensor[1:].clone())
        if tensor.dim() == 2 and tensor.numel():
            want = tensor.chunk(3, dim=1)[1].clone(memory_format=torch.contiguous_format)
            assert same(model.tensor("latest", key, dim=1, shard=(1, 3), component="model"), want), key
    some = {key: tensor for key, tensor in tensors.items() if key.startswith(("columns", "grid", "rows"))}
    for dtype in (torch.float16, torch.bfloat16):
        params = {"component": "model", "include": ["columns*", "grid*", "rows*"], "dtype": str(dtype)[6:]}
        found = loaded(downloaded(http, model, "state_dict", **params))
        assert same(dict(found), {k: v.to(dtype) if v.is_floating_point() else v for k, v in some.items()})
    plain = {key: tensor for key, tensor in tensors.items() if "complex" not in key}
    found = load_safetensors(
        downloaded(http, model, "state_dict", component="model", exclude="*complex*", format="safetensors")
    )
    assert same(by_name(found), by_name(plain))


def test_any_range_is_that_slice_of_the_whole(sharded: Saved, http: httpx.Client, model: Model) -> None:
    model.upload(sharded.folder)
    path = f"/v1/models/{model.name}/checkpoints/1/state_dict"
    params = {"component": "model", "include": "grid*"}
    whole_file = http.get(path, params=params).content
    size = len(whole_file)
    assert size > torch.Size(LARGE).numel() * 4
    for start, end in ((0, 100), (size // 2 - 5_000, size // 2 + 70_001), (16_777_000, 16_778_000), (size - 300, size)):
        part = http.get(path, params=params, headers={"Range": f"bytes={start}-{end - 1}"})
        assert part.content == whole_file[start:end]


def test_all_ways_to_upload_a_folder_give_one_checkpoint(
    saves: Mapping[str, Saved], http: httpx.Client, model: Model, tmp_path: Path
) -> None:
    saved = saves["trained-2"]
    files = contents(saved.folder)
    uploads = f"/v1/models/{model.name}/checkpoints"
    as_form = http.post(uploads, files=form(files))
    as_zip = http.post(uploads, content=folder_zip(files))
    below = http.post(uploads, content=folder_zip({f"step-7.5/{path}": data for path, data in files.items()}))
    [imported] = import_folder(Client(str(http.base_url)), saved.folder, model.name)
    assert [each.status_code for each in (as_form, as_zip, below)] == [201, 201, 201], below.text
    assert imported.why is None
    for version in (1, 2, 3, 4):
        assert same(model.load(version), saved.state)


def test_several_saves_and_other_files_share_a_folder(
    saves: Mapping[str, Saved], http: httpx.Client, model: Model
) -> None:
    one, two = saves["trained-1"], saves["trained-2"]
    files = {f"step-1/{path}": data for path, data in contents(one.folder).items()}
    files |= {f"step-2/{path}": data for path, data in contents(two.folder).items()}
    files |= {"extra.pt": saved_file({"w": torch.ones(3)}), "notes.txt": b"text", "step-2/__9_0.distcp": bytes(5_000)}
    assert http.post(f"/v1/models/{model.name}/checkpoints", files=form(files)).status_code == 201
    assert same(model.load("latest"), {"extra": {"w": torch.ones(3)}, "step-1": one.state, "step-2": two.state})


def test_an_equal_save_is_stored_once_and_is_the_same(sharded: Saved, model: Model, http: httpx.Client) -> None:
    """The weights are blobs: what is new in a second save is its frame."""
    model.upload(sharded.folder)
    namespace = f"/v1/namespaces/{model.name.partition('/')[0]}"
    before = http.get(namespace).json()["stored_bytes"]
    model.upload(sharded.folder)
    assert http.get(namespace).json()["stored_bytes"] - before < 1_000_000
    assert model.diff(1, 2).summary == {"same": 24, "changed": 0, "added": 0, "removed": 0, "moved": 0}


def test_shards_are_compared_with_whole_tensors(sharded: Saved, model: Model) -> None:
    model.upload(sharded.folder)
    changed = {key: tensor.clone() for key, tensor in sharded.state["model"].items()}
    changed["grid"][3, 5] += 1
    model.save({"model": changed})
    found = model.diff(1, 2, component="model")
    assert [item.key for item in found.items if item.status != "same"] == ["grid"]


def test_statistics_are_those_of_the_whole_tensor(sharded: Saved, model: Model) -> None:
    model.upload(sharded.folder)
    found = {each.key: each for each in model.stats("latest", component="model")}
    for key in ("rows", "columns", "grid.large", "cube", "grid.of.rows"):
        tensor = sharded.state["model"][key].double()
        assert found[key].mean == pytest.approx(float(tensor.mean()), abs=1e-9)
        assert found[key].max == float(tensor.max())


def test_a_module_is_loaded_in_place_and_warm_started(saves: Mapping[str, Saved], model: Model) -> None:
    saved = saves["trained-3"]
    model.upload(saved.folder)
    net = network()
    model.load_into({"model": net}, "latest")
    assert same(dict(net.state_dict()), saved.state["model"])
    other = torch.nn.Sequential(torch.nn.Linear(70, 50), torch.nn.ReLU(), torch.nn.Linear(50, 3))
    report = model.warmstart(other, "latest", component="model")
    assert report.matched_keys == ("0.weight", "0.bias")
    assert torch.equal(other[0].weight, saved.state["model"]["0.weight"])


def test_two_saves_are_merged(saves: Mapping[str, Saved], model: Model) -> None:
    one, two = saves["trained-2"], saves["trained-3"]
    model.upload(one.folder)
    model.upload(two.folder)
    model.merge([1, 2])
    for key, tensor in model.state_dict("latest", component="model").items():
        pair = [each.state["model"][key].double() for each in (one, two)]
        assert torch.allclose(tensor.double(), sum(pair) / 2)


def test_a_folder_is_loaded_into_shards_without_it(saves: Mapping[str, Saved], model: Model) -> None:
    saved = saves["trained-3"]
    model.upload(saved.folder)
    net = network()
    state = {"model": net.state_dict()}
    reader = StateroomReader(model, "latest", component={"model": "model"})
    dcp.load(state, storage_reader=reader, no_dist=True)
    assert same(dict(state["model"]), saved.state["model"])
