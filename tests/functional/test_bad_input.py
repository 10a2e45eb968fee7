"""Bad input: each invalid file gets its error code and leaves nothing behind, in the catalog or on disk."""

import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.functional.audited import Audited, assert_leaks_nothing, assert_refused, trace, whole_checkpoint
from tests.functional.classifier import make_net
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import loaded, same, saved
from tests.store.devices import mounted_tmpfs
from tests.support.server import start_server


def zip_of(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "an empty body": (lambda: b"", "not-a-checkpoint"),
    "a text": (lambda: b"no checkpoint at all\n" * 100, "not-a-checkpoint"),
    "zeros": (lambda: bytes(100_000), "not-a-checkpoint"),
    "a file cut in its directory": (lambda: whole_checkpoint()[:-50], "not-a-checkpoint"),
    "a file cut in half": (lambda: whole_checkpoint()[: len(whole_checkpoint()) // 2], "not-a-checkpoint"),
    "the end of a file": (lambda: whole_checkpoint()[len(whole_checkpoint()) // 2 :], "not-a-checkpoint"),
    "a zip that is no checkpoint": (lambda: zip_of(**{"readme.txt": b"hello"}), "not-a-checkpoint"),
    "an empty zip": (zip_of, "not-a-checkpoint"),
    "a zip whose pickle is none": (
        lambda: zip_of(**{"x/data.pkl": b"hello", "x/version": b"3\n"}),
        "hostile-checkpoint",
    ),
    "a real tar of the first torch": (tar, "not-a-checkpoint"),
    "a checkpoint without tensors": (lambda: saved({"epoch": 3, "loss": 0.5, "names": ["a"]}), "no-tensors"),
}


@pytest.mark.parametrize(("build", "code"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_checkpoint_is_refused_and_leaves_nothing(
    audited: Audited, target: HttpModel, build: Callable[[], bytes], code: str
) -> None:
    data, before = build(), trace(audited.server)
    for send in (
        lambda: target.http.post(target.url(), content=data, params={"epoch": 1}),
        lambda: target.http.put(target.url(), content=data),
        lambda: target.http.post(target.url(), files={"file": ("x.pt", data)}),
    ):
        assert_refused(audited.server, send(), 422, code, before)


def test_one_ranks_shard_is_refused_and_leaves_nothing(audited: Audited, target: HttpModel, tmp_path: Path) -> None:
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own, about a group of one
        distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
        try:
            shard = distribute_tensor(torch.ones(4, 2), init_device_mesh("cpu", (1,)), [Shard(0)])
            data = saved({"model_state_dict": {"fc.weight": shard}})
        finally:
            distributed.destroy_process_group()
    before = trace(audited.server)
    assert_refused(audited.server, target.http.post(target.url(), content=data), 422, "sharded-tensor", before)


def test_two_uploads_of_one_epoch_at_once_are_two_versions(target: HttpModel) -> None:
    nets = [make_net(seed).state_dict() for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        shown = list(pool.map(lambda net: target.upload(saved(net), epoch=3), nets))
    assert sorted(checkpoint["version"] for checkpoint in shown) == [1, 2]
    for checkpoint, net in zip(shown, nets, strict=True):
        assert same(loaded(target.get(f"{checkpoint['version']}/state_dict")), net)
    assert target.json("epoch:3")["version"] == 2


def test_the_same_bytes_sent_many_times_at_once_are_as_many_versions(target: HttpModel) -> None:
    data = whole_checkpoint()
    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(lambda _: target.upload(data)["version"], range(6)))
    assert sorted(versions) == list(range(1, 7))
    assert {target.get(f"{version}/original") for version in versions} == {data}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 24 MB."""
    with mounted_tmpfs(tmp_path / "disk", 24) as folder:
        yield folder


def test_a_full_disk_is_a_507_that_leaves_nothing_and_the_server_goes_on(small_disk: Path) -> None:
    server = start_server(small_disk / "data")
    try:
        with server.client() as http:
            model = HttpModel(http, "tests/full")
            model.upload(whole_checkpoint())
            before = trace(server)
            too_much = saved({"w": torch.zeros(7_000_000)})
            for send in (http.post, http.put):
                answer = send(model.url(), content=too_much)
                assert_refused(server, answer, 507, "storage-full", before)
            unannounced = http.post(model.url(), content=iter([too_much]))
            assert_refused(server, unannounced, 507, "storage-full", before)
            assert model.get("latest/original") == whole_checkpoint()
            assert model.upload(saved(make_net(1).state_dict()))["version"] == 2
            assert_leaks_nothing(server, server.log)
    finally:
        server.kill()
