"""Folders through the client and a real server: uploaded, listed, loaded, and written again byte for byte."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stateroom import BadFolder, Client, InvalidRequest, Model, NotFound
from tests.conftest import StartServer
from tests.support.server import Server

LARGE = 1_500_000
"""Elements with which a folder is sent in parts: 6 MB."""


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    return client.model(model_name)


def tensors(size: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "embed.weight": torch.randn(size, generator=generator),
        "layer.weight": torch.randn(4, size // 4, generator=generator),
        "layer.bias": torch.randn(3, generator=generator),
    }


def write_shards(folder: Path, state: dict[str, torch.Tensor], name: str = "model") -> None:
    """Write one shard for each tensor, and their index, as save_pretrained does."""
    keys, suffix = list(state), "safetensors" if name == "model" else "bin"
    weight_map = {}
    for number, key in enumerate(keys, start=1):
        shard = f"{name}-{number:05}-of-{len(keys):05}.{suffix}"
        weight_map[key] = shard
        if suffix == "bin":
            torch.save({key: state[key]}, folder / shard)
        else:
            save_file({key: state[key]}, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{name}.{suffix}.index.json").write_text(json.dumps(index))


def pretrained(folder: Path, size: int = 2_000, seed: int = 0) -> dict[str, torch.Tensor]:
    """Make a folder as ``save_pretrained`` does: shards, config, tokenizer."""
    folder.mkdir(parents=True)
    state = tensors(size, seed)
    write_shards(folder, state)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 4}))
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({str(n): n for n in range(5_000)}))
    (folder / "tokenizer" / "文字.txt").write_text("é")
    (folder / "empty").write_bytes(b"")
    return state


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_equal(loaded: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
    assert loaded.keys() == state.keys()
    for key, tensor in state.items():
        assert loaded[key].dtype == tensor.dtype
        assert torch.equal(loaded[key], tensor)


@pytest.mark.parametrize("size", [2_000, LARGE], ids=["in one piece", "in parts"])
def test_shards_come_back_byte_for_byte_and_as_one_state_dict(model: Model, tmp_path: Path, size: int) -> None:
    state = pretrained(tmp_path / "model", size)
    checkpoint = model.upload(tmp_path / "model")
    assert checkpoint.format == "folder"
    assert [component.name for component in checkpoint.components] == [""]
    assert (checkpoint.digest is None) == (size == LARGE)

    assert model.download("latest", tmp_path / "again") == tmp_path / "again"
    assert contents(tmp_path / "again") == contents(tmp_path / "model")
    assert_equal(model.state_dict("latest"), state)
    assert_equal(model.load("latest"), state)
    assert_equal(
        model.state_dict("latest", include=["weight", "bias"], strip_prefix="layer.", dtype=torch.bfloat16),
        {"weight": state["layer.weight"].bfloat16(), "bias": state["layer.bias"].bfloat16()},
    )
    path = model.download_state_dict("latest", tmp_path / "one.safetensors", format="safetensors")
    assert path.stat().st_size > 8 * size
    target = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
    module = nn.ParameterDict({key.replace(".", "_"): tensor for key, tensor in target.items()})
    report = model.warmstart(module, "latest", rename=[(key, key.replace(".", "_")) for key in state])
    assert len(report.matched_keys) == 3
    assert torch.equal(module["embed_weight"].data, state["embed.weight"])


def test_files_are_listed_with_what_they_are(model: Model, tmp_path: Path) -> None:
    pretrained(tmp_path / "model")
    listed = model.upload(tmp_path / "model").files()
    assert [file.path for file in listed] == sorted(contents(tmp_path / "model"))
    by_path = {file.path: file for file in listed}
    assert {path: file.bytes for path, file in by_path.items()} == {
        path: len(data) for path, data in contents(tmp_path / "model").items()
    }
    shard = by_path["model-00001-of-00003.safetensors"]
    assert (shard.format, shard.components, shard.digest) == ("safetensors", ("",), None)
    vocabulary = by_path["tokenizer/vocab.json"]
    assert (vocabulary.format, vocabulary.components) == (None, ())
    assert vocabulary.digest is not None


def test_a_checkpoint_that_is_no_folder_is_one_file(model: Model, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "model.pt")
    (uploaded,) = model.upload(tmp_path / "model.pt").files()
    assert uploaded.path.endswith(".pt")
    assert uploaded.bytes == (tmp_path / "model.pt").stat().st_size
    assert uploaded.components == ("",)
    saved = model.save({"weight": torch.ones(3)})
    assert saved is not None
    (file,) = saved.files()
    assert file.path.endswith(".pt")


def test_what_did_not_change_is_stored_once(model: Model, tmp_path: Path) -> None:
    pretrained(tmp_path / "model", LARGE)
    model.upload(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    again = model.upload(tmp_path / "model")
    assert again.new_bytes < 8_000, "the frame and the manifest alone"


def trainer(folder: Path, size: int = 2_000) -> dict[str, torch.Tensor]:
    """Make a folder as the Trainer of transformers does."""
    folder.mkdir()
    state = tensors(size)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(size))], lr=0.25)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(size)
    optimizer.step()
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    torch.save({"last_epoch": 7, "_last_lr": [0.25]}, folder / "scheduler.pt")
    torch.save({"cpu": torch.get_rng_state()}, folder / "rng_state.pth")
    torch.save(Path("an object without tensors"), folder / "training_args.bin")
    history = [
        {"loss": 2.0, "epoch": 1.0, "step": 5},
        {"eval_loss": 0.5, "eval_acc": 0.75, "epoch": 2.0, "step": 10},
    ]
    facts = {"epoch": 2.0, "global_step": 10, "log_history": history, "best_metric": 0.75}
    (folder / "trainer_state.json").write_text(json.dumps(facts) + " " * 10_000)
    return state


@pytest.mark.parametrize("size", [2_000, LARGE], ids=["in one piece", "in parts"])
def test_several_checkpoint_files_hang_under_their_names(model: Model, tmp_path: Path, size: int) -> None:
    state = trainer(tmp_path / "checkpoint-10", size)
    checkpoint = model.upload(tmp_path / "checkpoint-10")
    assert {each.name: each.kind for each in checkpoint.components} == {
        "model": "state_dict", "optimizer": "optimizer", "rng_state": "state_dict",
    }  # fmt: skip
    assert (checkpoint.epoch, checkpoint.step, checkpoint.loss) == (2, 10, 2.0)
    assert checkpoint.metrics == {"eval_loss": 0.5, "eval_acc": 0.75, "best_metric": 0.75}
    assert checkpoint.unsafe_globals == ()
    assert_equal(model.state_dict("latest"), state)
    loaded = model.load("latest")
    assert set(loaded) == {"model", "optimizer", "scheduler", "rng_state"}
    assert loaded["scheduler"] == {"last_epoch": 7, "_last_lr": [0.25]}
    assert torch.equal(loaded["optimizer"]["state"][0]["exp_avg"], torch.full((size,), 0.1))
    formats = {file.path: file.format for file in checkpoint.files()}
    assert formats["optimizer.pt"] == "torch_zip"
    assert formats["training_args.bin"] is None
    model.download("latest", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "checkpoint-10")


def test_shards_of_pickles_are_merged_and_keep_their_versions(model: Model, tmp_path: Path) -> None:
    state = tensors(2_000)
    write_shards(tmp_path, state, "pytorch_model")
    model.upload(tmp_path)
    assert_equal(model.state_dict("latest"), state)


def test_a_folder_with_a_file_from_before_torch_1_6_is_sent_in_one_piece(model: Model, tmp_path: Path) -> None:
    state = tensors(LARGE)
    folder = tmp_path / "model"
    folder.mkdir()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (folder / "config.json").write_text("{}")
    assert model.upload(folder).digest is not None
    assert_equal(model.state_dict("latest"), state)
    model.download("latest", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(folder)


def test_a_link_to_a_file_counts_as_the_file(model: Model, tmp_path: Path) -> None:
    """The cache of Hugging Face is made of links."""
    save_file(tensors(2_000), tmp_path / "blob")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.safetensors").symlink_to("../blob")
    assert [file.path for file in model.upload(tmp_path / "snapshot").files()] == ["model.safetensors"]


Spoil = Callable[[Path], object]

UNSENDABLE: dict[str, tuple[Spoil, str]] = {
    "a link to nothing": (lambda folder: (folder / "a").symlink_to("nowhere"), "a cannot be read"),
    "a link to a folder": (lambda folder: (folder / "a").symlink_to(folder.parent), "a is a link to a folder"),
    "a pipe": (lambda folder: os.mkfifo(folder / "a"), "a is not a regular file"),
    "a name that is not UTF-8": (lambda folder: Path(os.fsdecode(bytes(folder) + b"/\xff")).touch(), "is not UTF-8"),
}


@pytest.mark.parametrize("what", UNSENDABLE)
def test_what_cannot_be_sent_is_named_before_anything_is_sent(model: Model, tmp_path: Path, what: str) -> None:
    spoil, words = UNSENDABLE[what]
    pretrained(tmp_path / "model")
    spoil(tmp_path / "model")
    with pytest.raises(InvalidRequest, match=words):
        model.upload(tmp_path / "model")
    with pytest.raises(NotFound):
        model.checkpoint("latest")


def test_an_empty_folder_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="has no files"):
        model.upload(tmp_path)


def test_a_file_that_changes_while_it_is_sent_is_named_and_nothing_is_stored(
    server: Server, model_name: str, tmp_path: Path
) -> None:
    pretrained(tmp_path / "model", LARGE, seed=1)  # or the server would have it already
    shard = tmp_path / "model" / "model-00001-of-00003.safetensors"

    def touch(label: str, done: int, total: int | None) -> None:
        os.utime(shard, ns=(1, 1))

    with Client(server.base_url, progress=touch) as client:
        model = client.model(model_name)
        with pytest.raises(InvalidRequest, match=r"model-00001-of-00003\.safetensors changed"):
            model.upload(tmp_path / "model")
        with pytest.raises(NotFound):
            model.checkpoint("latest")


def test_a_folder_is_looked_into_like_any_checkpoint(model: Model, tmp_path: Path) -> None:
    state = pretrained(tmp_path / "one")
    model.upload(tmp_path / "one")
    write_shards(tmp_path / "one", {**state, "layer.bias": state["layer.bias"] + 1})
    model.upload(tmp_path / "one", scan=True)
    assert model.diff(1, 2).summary["changed"] == 1
    assert {item.key for item in model.diff(1, 2, numeric=True).of("changed")} == {"layer.bias"}
    assert len(list(model.stats("latest"))) == 3
    assert {tensor.key for tensor in model.tensors("latest")} == set(state)
    rows = dict(model.iter_tensors("latest", include="layer.bias"))
    assert torch.equal(rows["layer.bias"], state["layer.bias"] + 1)
    assert torch.equal(model.tensor("latest", "layer.weight", rows=slice(1, 3)), state["layer.weight"][1:3])
    tagged = torch.load(model.download("latest", tmp_path / "gpu.pt", "meta"))
    assert tagged["layer.bias"].device.type == "meta"


def test_without_the_server_a_folder_comes_from_the_cache(fresh_server: StartServer, tmp_path: Path) -> None:
    server = fresh_server()
    pretrained(tmp_path / "model", LARGE)
    with Client(server.base_url) as direct:
        direct.model("a/b").upload(tmp_path / "model")

    def client() -> Client:
        return Client(server.base_url, cache_dir=tmp_path / "cache", offline="fallback", retry_seconds=0.1)

    with client() as online:
        online.model("a/b").download("latest", tmp_path / "first")
    server.stop()
    with client() as offline:
        offline.model("a/b").download("latest", tmp_path / "second")
    assert contents(tmp_path / "second") == contents(tmp_path / "first") == contents(tmp_path / "model")


def test_a_missing_shard_is_named_and_nothing_is_stored(model: Model, tmp_path: Path) -> None:
    pretrained(tmp_path / "model")
    (tmp_path / "model" / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(BadFolder, match=r"model-00002-of-00003\.safetensors"):
        model.upload(tmp_path / "model")
    with pytest.raises(NotFound):
        model.checkpoint("latest")


def test_a_download_overwrites_nothing_and_leaves_nothing_after_an_error(model: Model, tmp_path: Path) -> None:
    pretrained(tmp_path / "model")
    model.upload(tmp_path / "model")
    (tmp_path / "here").mkdir()
    model.download("latest", tmp_path / "here")
    before = contents(tmp_path)
    with pytest.raises(InvalidRequest, match="not an empty folder"):
        model.download("latest", tmp_path / "here")
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match="not an empty folder"):
        model.download("latest", tmp_path / "file")
    (tmp_path / "file").unlink()
    assert contents(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"model", "here"}
