"""stateroom:// as a file system of fsspec, which torch is installed with."""

import io
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import save_file

from stateroom import Client, InvalidRequest, Model, NotACheckpoint, ServerUnavailable
from stateroom.integrations.fsspec import StateroomFileSystem
from tests.functional.torch_files import saved
from tests.support.docs import python_of
from tests.support.ports import held_ports
from tests.support.server import Server


@pytest.fixture
def fs(server: Server) -> StateroomFileSystem:
    return StateroomFileSystem(url=server.base_url)


@pytest.fixture(autouse=True)
def _url(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STATEROOM_URL", server.base_url)
    StateroomFileSystem.clear_instance_cache()  # they have the URLs of other tests
    yield
    StateroomFileSystem.clear_instance_cache()


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


@pytest.fixture
def url(model_name: str) -> str:
    return f"stateroom://{model_name}"


def state(number: float, size: int = 3) -> dict[str, Any]:
    return {"epoch": int(number), "loss": number, "model_state_dict": {"weight": torch.full((size,), number)}}


def write(fs: StateroomFileSystem, path: str, number: float = 1) -> None:
    with fs.open(path, "wb") as file:
        torch.save(state(number), file)


def test_torch_saves_and_loads_by_url(url: str, model: Model) -> None:
    with fsspec.open(f"{url}/runs/a/last.pt", "wb") as file:
        torch.save(state(2), file)
    checkpoint = model.checkpoint("latest")
    assert (checkpoint.run, checkpoint.slot, checkpoint.epoch, checkpoint.loss) == ("runs/a", "last.pt", 2, 2.0)
    for path in (f"{url}/runs/a/last.pt", f"{url}@latest", f"{url}@epoch:2"):
        with fsspec.open(path) as file:
            assert torch.load(file)["loss"] == 2


def test_a_file_is_replaced_once_the_next_one_is_stored(url: str, model: Model, fs: StateroomFileSystem) -> None:
    write(fs, f"{url}/a.pt", 1)
    with pytest.raises(NotACheckpoint), fs.open(f"{url}/a.pt", "wb") as file:
        file.write(b"no checkpoint")
    assert torch.load(fs.open(f"{url}/a.pt"))["loss"] == 1
    write(fs, f"{url}/a.pt", 2)
    assert torch.load(fs.open(f"{url}/a.pt"))["loss"] == 2
    assert [each.version for each in model.checkpoints()] == [2]


def test_a_file_that_was_not_finished_is_not_there(url: str, fs: StateroomFileSystem) -> None:
    with suppress(KeyError), fs.open(f"{url}/a.pt", "wb") as file:
        torch.save(state(1), file)
        raise KeyError
    with suppress(KeyError), fs.transaction:
        write(fs, f"{url}/a.pt")
        raise KeyError
    assert not fs.exists(f"{url}/a.pt")
    with fs.transaction:
        write(fs, f"{url}/a.pt")
        assert not fs.exists(f"{url}/a.pt")
    assert fs.exists(f"{url}/a.pt")


def test_folders_are_runs(url: str, model_name: str, fs: StateroomFileSystem) -> None:
    assert not fs.exists(url)
    with pytest.raises(FileNotFoundError):
        fs.ls(url)
    for name in ("a.pt", "run/b.pt", "run/c.pt", "run/deeper/d.pt", "runner/e.pt"):
        write(fs, f"{url}/{name}")
    fs.makedirs(f"{url}/empty", exist_ok=True)
    assert fs.ls(url, detail=False) == [f"{model_name}/{name}" for name in ("a.pt", "run", "runner")]
    assert [each["type"] for each in fs.ls(f"{url}/run")] == ["file", "file", "directory"]
    assert fs.glob(f"{url}/run/*.pt") == [f"{model_name}/run/{name}" for name in ("b.pt", "c.pt")]
    assert fs.find(f"{url}/run") == [f"{model_name}/run/{name}" for name in ("b.pt", "c.pt", "deeper/d.pt")]
    assert fs.isdir(f"{url}/run/deeper")
    assert fs.isfile(f"{url}/a.pt")
    assert not fs.isdir(f"{url}/a.pt")
    assert not fs.exists(f"{url}/empty")
    assert not fs.exists(f"{url}/ru")


def test_runs_do_not_see_the_files_of_others(url: str, fs: StateroomFileSystem) -> None:
    write(fs, f"{url}/run/a.pt", 1)
    assert not fs.exists(f"{url}/a.pt")
    write(fs, f"{url}/a.pt", 2)
    assert torch.load(fs.open(f"{url}/run/a.pt"))["loss"] == 1
    assert torch.load(fs.open(f"{url}/a.pt"))["loss"] == 2


@pytest.mark.parametrize("size", [3, 2_000_000], ids=["small", "large"])
@pytest.mark.parametrize("kind", ["save", "upload", "legacy", "safetensors"])
def test_the_bytes_of_any_checkpoint_are_those_of_its_download(
    kind: str, size: int, url: str, model: Model, fs: StateroomFileSystem, tmp_path: Path
) -> None:
    obj = {"weight": torch.randn(size)}
    if kind == "save":
        model.save(obj)
    elif kind == "safetensors":
        save_file(obj, tmp_path / "a.safetensors")
        model.upload(tmp_path / "a.safetensors")
    else:
        model.upload(io.BytesIO(saved(obj, **({"_use_new_zipfile_serialization": False} if kind == "legacy" else {}))))
    data = model.download("latest", tmp_path / "downloaded").read_bytes()
    assert fs.info(f"{url}@latest")["size"] == len(data)
    with fs.open(f"{url}@latest", block_size=2**16) as file:
        assert file.read(10) == data[:10]
        file.seek(-22, io.SEEK_END)
        assert file.read() == data[-22:]
    assert fs.cat_file(f"{url}@latest") == data
    assert fs.cat_file(f"{url}@latest", 7, -7) == data[7:-7]


def test_ranges_of_a_file_come_together(url: str, model: Model, server: Server, fs: StateroomFileSystem) -> None:
    model.save({"weight": torch.randn(2_000_000)})
    data = fs.cat_file(f"{url}@1")
    before = len(server.requests)
    starts, ends = [0, 10, 5000, 4_000_000, 20], [10, 20, 5010, 4_000_007, 20]
    found = fs.cat_ranges([f"{url}@1"] * 5, starts, ends)
    assert found == [data[start:end] for start, end in zip(starts, ends, strict=True)]
    assert sum(each["bytes_out"] for each in server.requests[before:] if each["status"] == 206) < 100_000


def test_files_are_copied_moved_and_removed(url: str, model: Model, fs: StateroomFileSystem, tmp_path: Path) -> None:
    write(fs, f"{url}/a.pt")
    fs.mv(f"{url}/a.pt", f"{url}/run/b.pt")
    assert fs.exists(f"{url}/run/b.pt")
    assert not fs.exists(f"{url}/a.pt")
    fs.get(f"{url}/run/b.pt", str(tmp_path / "b.pt"))
    assert torch.load(tmp_path / "b.pt")["loss"] == 1
    fs.put(str(tmp_path / "b.pt"), f"{url}/run/c.pt")
    fs.rm(f"{url}/run", recursive=True)
    assert not fs.exists(url)
    assert {each.slot for each in model.checkpoints(trash=True)} == {"a.pt", "b.pt", "c.pt"}
    with pytest.raises(FileNotFoundError):
        fs.rm_file(f"{url}/a.pt")


@pytest.mark.parametrize("protocol", ["simplecache", "filecache"])
def test_caches_of_fsspec_notice_another_version(
    protocol: str, url: str, fs: StateroomFileSystem, tmp_path: Path
) -> None:
    options = {"cache_storage": str(tmp_path)} | ({"check_files": True} if protocol == "filecache" else {})
    for number in (1, 2):
        write(fs, f"{url}/a.pt", number)
        with fsspec.open(f"{protocol}::{url}/a.pt", **{protocol: options}) as file:
            seen = torch.load(file)["loss"]
    assert seen == {"filecache": 2, "simplecache": 1}[protocol]  # simplecache never looks again


def test_the_files_of_a_folder_are_read(url: str, model: Model, fs: StateroomFileSystem, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "more").mkdir(parents=True)
    save_file({"weight": torch.randn(700_000)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "more" / "a file%41.txt").write_text("more")
    model.upload(folder)
    top = f"{model.name}@latest"
    assert fs.isdir(f"{url}@latest")
    assert fs.find(f"{url}@latest") == [
        f"{top}/{name}" for name in ("config.json", "model.safetensors", "more/a file%41.txt")
    ]
    assert fs.ls(f"{url}@latest/more", detail=False) == [f"{top}/more/a file%41.txt"]
    assert fs.cat_file(f"{url}@latest/more/a file%41.txt") == b"more"
    assert fs.info(f"{url}@latest/config.json")["size"] == 2
    fs.get(f"{url}@latest", str(tmp_path / "copy"), recursive=True)
    assert (tmp_path / "copy/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    with fs.open(f"{url}@1/model.safetensors") as file:
        file.seek(-4, io.SEEK_END)
        assert file.read() == (folder / "model.safetensors").read_bytes()[-4:]
    for path in (f"{url}@latest/nope", f"{url}@latest/mor", f"{url}@2/config.json", f"{url}@2"):
        assert not fs.exists(path)
    with pytest.raises(FileNotFoundError):
        fs.open(f"{url}@latest")


def test_a_file_is_not_removed_by_a_ref_that_moves(url: str, model: Model, fs: StateroomFileSystem) -> None:
    write(fs, f"{url}/a.pt")
    with pytest.raises(InvalidRequest, match="cannot be removed by its ref"):
        fs.rm(f"{url}@latest")
    assert model.checkpoint("latest").version == 1


def test_times_and_numbers_are_those_of_the_checkpoint(url: str, model: Model, fs: StateroomFileSystem) -> None:
    write(fs, f"{url}/a.pt", 3)
    checkpoint = model.checkpoint("latest")
    assert fs.modified(f"{url}/a.pt") == fs.created(f"{url}/a.pt") == checkpoint.created_at
    info = fs.info(f"{url}/a.pt")
    assert (info["version"], info["epoch"], info["loss"]) == (1, 3, 3.0)


@pytest.mark.parametrize(
    ("path", "mode", "error"),
    [
        ("stateroom://tests", "rb", "names no model; use stateroom://NAMESPACE/NAME/RUN/FILE"),
        ("stateroom://tests/a//b", "rb", "names no model"),
        ("stateroom://tests/a@", "rb", "has no ref after the @, as stateroom://tests/a@latest has"),
        ("stateroom://tests/a", "wb", "name a file, as in stateroom://tests/a/RUN/FILE"),
        ("stateroom://tests/a@1", "wb", "name a file, as in stateroom://tests/a/RUN/FILE"),
    ],
)
def test_a_path_that_names_nothing_is_explained(path: str, mode: str, error: str, fs: StateroomFileSystem) -> None:
    with pytest.raises(InvalidRequest, match=error):
        fs.open(path, mode)


def test_files_are_not_appended_to(fs: StateroomFileSystem) -> None:
    with pytest.raises(ValueError, match="'ab': a file of stateroom:// can be read"):
        fs.open("stateroom://tests/a/b.pt", "ab")


def test_a_server_that_is_away_is_not_an_absent_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATEROOM_RETRY_SECONDS", "0")
    with held_ports(1) as (port,):
        fs = StateroomFileSystem(url=f"http://127.0.0.1:{port}")
        with pytest.raises(ServerUnavailable):
            fs.exists("stateroom://tests/a/b.pt")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_the_code_in_the_documentation_runs() -> None:
    exec(compile(python_of("docs/frameworks.md", "fsspec"), "docs/frameworks.md", "exec"), {})
