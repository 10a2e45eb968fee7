"""A full disk: stored checkpoints are still served, and can be deleted."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.functional.torch_files import saved
from tests.store.devices import mounted_tmpfs
from tests.support.commands import run
from tests.support.server import Server, start_server
from tests.support.waiting import assert_soon, is_spooling, until_ready

MODEL = "/v1/models/tests/full"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 40 MB."""
    with mounted_tmpfs(tmp_path / "disk", 40) as folder:
        yield folder


def free_on(disk: Path) -> int:
    device = os.statvfs(disk)
    return device.f_bavail * device.f_frsize


def fill(disk: Path) -> Path:
    """Take every byte that is left, as another program on the same disk would."""
    path = disk / "of-another-program"
    with path.open("ab", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    assert free_on(disk) == 0
    return path


def checkpoint(seed: int) -> bytes:
    return saved({"weight": torch.rand(500_000, generator=torch.Generator().manual_seed(seed))})


def figure(server: Server, name: str) -> float:
    with server.client() as http:
        lines = http.get("/metrics").text.splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name)))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_disk_without_a_free_byte_is_served_freed_and_started_from(disk: Path, workers: str) -> None:
    server = start_server(disk / "data", "--workers", workers, "--sweep-interval", "0")
    reserve = server.data_dir / "stateroom-reserve"
    files = {version: checkpoint(version) for version in range(1, 6)}
    try:
        with server.client() as http:
            for file in files.values():
                assert http.post(f"{MODEL}/checkpoints", content=file).status_code == 201
            ready = until_ready(http)
            assert (ready["status"], ready["uploads"]) == ("ready", "accepted")
            assert ready["free_bytes"]["data"] == ready["free_bytes"]["store"] > 0
            assert figure(server, "stateroom_reserve_bytes") == reserve.stat().st_blocks * 512 > 4_000_000

            fill(disk)
            refused = http.post(f"{MODEL}/checkpoints", content=checkpoint(9))
            assert (refused.status_code, refused.json()["code"]) == (507, "storage-full")
            assert "stateroom-server sweep --empty-trash --grace 0" in refused.json()["detail"]
            assert http.patch(f"{MODEL}/checkpoints/1", json={"tags": {"a": "b"}}).status_code == 507
            ready = until_ready(http)
            assert ready["status"] == "degraded"
            assert ready["uploads"].startswith("refused: the disk is full")
            assert figure(server, 'stateroom_disk_free_bytes{device="data"}') < 1_000_000

            assert http.delete(f"{MODEL}/checkpoints/1").status_code == 204
            del files[1]
            swept = command(server, "sweep", "--empty-trash", "--grace", "0")
            assert (swept.returncode, swept.stderr) == (0, "")
            assert len(list(server.data_dir.rglob("*.pack"))) == len(files)

        server.kill()
        fill(disk)
        server = start_server(disk / "data", "--workers", workers, "--sweep-interval", "0")
        with server.client() as http:
            for version, file in files.items():
                assert http.get(f"{MODEL}/checkpoints/{version}/original").content == file
            assert http.post(f"{MODEL}/checkpoints", content=checkpoint(9)).status_code == 507
            (disk / "of-another-program").unlink()
            assert http.post(f"{MODEL}/checkpoints", content=checkpoint(9)).status_code == 201
            assert reserve.stat().st_blocks * 512 > 4_000_000
            assert until_ready(http)["status"] == "ready"
            assert "Traceback" not in server.log
    finally:
        server.kill()


def test_uploads_at_once_and_in_parts_never_touch_the_reserve(disk: Path) -> None:
    """Nor do those whose length nobody knows: each gives way when the room that is left is the reserve's."""
    server = start_server(disk / "data", "--sweep-interval", "0", env={"STATEROOM_RESERVE": "12MB"})
    reserve = server.data_dir / "stateroom-reserve"
    try:
        with server.client() as http:
            first = http.post(f"{MODEL}/checkpoints", content=checkpoint(1))
            assert first.status_code == 201
            for length_known in (True, False):
                body = bytes(30_000_000)
                sent = body if length_known else iter([body])
                assert http.post(f"{MODEL}/checkpoints", content=sent).status_code == 507
                assert reserve.stat().st_blocks * 512 >= 12_000_000
            assert http.get(f"{MODEL}/checkpoints/1/original").content == checkpoint(1)
            assert_soon(lambda: not is_spooling(server))
    finally:
        server.kill()


def test_commands_work_on_a_disk_without_a_free_byte(disk: Path) -> None:
    server = start_server(disk / "data", "--sweep-interval", "0")
    try:
        with server.client() as http:
            for version in (1, 2, 3):
                assert http.post(f"{MODEL}/checkpoints", content=checkpoint(version)).status_code == 201
        assert command(server, "token", "add", "ci", "--scope", "read").returncode == 0
    finally:
        server.kill()
    others = fill(disk)
    assert command(server, "token", "revoke", "ci").returncode == 0
    fill(disk)  # with all that the reserve was, too
    swept = command(server, "sweep", "--empty-trash", "--grace", "0")
    assert swept.returncode == 1
    assert "no room left for the catalog" in swept.stderr
    others.unlink()
    swept = command(server, "sweep", "--empty-trash", "--grace", "0")
    assert (swept.returncode, swept.stderr) == (0, "")
    assert command(server, "fsck").returncode == 0


def command(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(*arguments, "--data-dir", str(server.data_dir))
