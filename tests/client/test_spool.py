"""A training survives its server: its saves wait on the local disk, and are stored once."""

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stateroom import (
    Checkpoint,
    Client,
    InvalidRequest,
    NotACheckpoint,
    SpooledCheckpoint,
    StateroomWarning,
    StorageFull,
    Unauthorized,
)
from tests.client.conftest import Answer, Seen, StartScripted, described, in_turn, problem
from tests.client.faults import Faulty, faulty
from tests.support.forks import Forked
from tests.support.scripts import start_script
from tests.support.server import Server, start_server
from tests.support.waiting import assert_soon, until_ready

LARGE = 2_000_000
"""Elements of a tensor that goes in parts."""


AWAY = "http://127.0.0.1:9"
"""Where no server is, nor ever was."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_server(tmp_path_factory.mktemp("away") / "data", env={"STATEROOM_DURABLE": "off"})
    yield server
    server.kill()


@pytest.fixture
def server(running: Server) -> Server:
    """A server that tests may stop, and that runs when they begin."""
    if running.process.poll() is not None:
        come_back(running)
    return running


@pytest.fixture
def relay(server: Server) -> Iterator[Faulty]:
    """An address that stays, whatever becomes of the server behind it."""
    with faulty(lambda: server.port) as relay:
        yield relay


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def state(number: int, size: int = 10) -> dict[str, Any]:
    return {"epoch": number, "weight": torch.full((size,), float(number))}


def come_back(server: Server) -> None:
    """Start a server again; it is ready, so a client that asks it does not take it to be away."""
    server.restart()
    with server.client() as http:
        until_ready(http)


def waiting(spool: Path, suffix: str = "") -> list[Path]:
    return sorted(path for path in spool.iterdir() if path.name != ".lock" and path.suffix == suffix)


def saved_while_away(
    client: Client, number: int, size: int = 10, *, model: str = "a/b", **fields: Any
) -> SpooledCheckpoint:
    with pytest.warns(StateroomWarning, match="is not on the server yet: it waits in"):
        kept = client.model(model).save(state(number, size), **fields)
    assert isinstance(kept, SpooledCheckpoint)
    return kept


def impatient(url: str, spool: Path, **options: Any) -> Client:
    return Client(url, spool_dir=spool, retry_seconds=0.5, **options)


@pytest.mark.parametrize("size", [10, LARGE])
def test_what_is_saved_while_the_server_is_away_is_stored_before_the_next_save(
    size: int, server: Server, relay: Faulty, spool: Path, model_name: str
) -> None:
    with impatient(relay.url, spool) as client:
        model = client.model(model_name, run="night")
        model.save(state(0, size))
        server.stop()
        with pytest.warns(StateroomWarning, match="waits in"):
            kept = model.save(state(1, size), loss=0.5, metrics={"acc": float("nan")}, tags={"by": "me"})
        with pytest.warns(StateroomWarning, match="waits in"):
            model.save(state(2, size))
        assert isinstance(kept, SpooledCheckpoint)
        assert (kept.version, kept.model, kept.run, kept.loss, kept.tags) == (
            None,
            model_name,
            "night",
            0.5,
            {"by": "me"},
        )
        assert torch.equal(torch.load(kept.path)["weight"], state(1, size)["weight"])
        come_back(server)
        last = model.save(state(3, size))
        assert last.version == 4
        assert [(each.version, each.epoch) for each in model.checkpoints()] == [(4, 3), (3, 2), (2, 1), (1, 0)]
        stored = model.checkpoint(2)
        assert (stored.run, stored.loss, stored.nonfinite, stored.tags) == ("night", 0.5, ("metric.acc",), {"by": "me"})
        assert torch.equal(model.load(2)["weight"], state(1, size)["weight"])
    assert waiting(spool) == waiting(spool, ".sent") == waiting(spool, ".part") == []


def test_a_save_in_the_background_waits_too(server: Server, relay: Faulty, spool: Path, model_name: str) -> None:
    server.stop()
    with pytest.warns(StateroomWarning, match="waits in"), impatient(relay.url, spool) as client:
        kept = client.model(model_name).save_async(state(1)).result()
    assert isinstance(kept, SpooledCheckpoint)
    come_back(server)
    with impatient(relay.url, spool) as client:
        assert [str(each) for each in client.send_spooled()] == [f"{model_name}@1"]
        assert client.send_spooled() == []


def test_what_waits_is_its_owners_alone_and_holds_no_token(spool: Path) -> None:
    old = os.umask(0)
    try:
        url = AWAY.replace("http://", "http://user:s3cret@")
        kept = saved_while_away(impatient(url, spool, token="t0ken"), 1)
    finally:
        os.umask(old)
    folders = [spool, kept.path.parent]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    files = [path for path in spool.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    held = b"".join(path.read_bytes() for path in files)
    assert b"t0ken" not in held
    assert b"s3cret" not in held


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_save_whose_answer_was_lost_waits_and_is_stored_once(
    size: int, server: Server, scripted: StartScripted, spool: Path, model_name: str
) -> None:
    lost: list[str] = []

    def script(request: Seen) -> Answer:
        """As the server answers; but the first answer that says that something is stored is lost."""
        names = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        with server.client() as http:
            answer = http.request(request.method, request.path, headers=names, content=request.body)
        stores = request.method == "POST" and request.path.partition("?")[0].endswith(("/commit", "/checkpoints"))
        if stores and not lost:
            lost.append(request.path)
            return Answer(drop=True)
        return Answer(answer.status_code, answer.content, {"Content-Type": answer.headers.get("Content-Type", "")})

    with Client(scripted(script).url, spool_dir=spool, retries=0) as client:
        saved_while_away(client, 1, size, model=model_name)
        assert len(lost) == 1
        assert [each.version for each in client.model(model_name).checkpoints()] == [1]
        assert [each.version for each in client.send_spooled()] == [1]
        assert [each.version for each in client.model(model_name).checkpoints()] == [1]


def test_a_refusal_is_an_error_and_nothing_waits(scripted: StartScripted, spool: Path) -> None:
    server = scripted(in_turn(problem(422, "not-a-checkpoint")))
    with impatient(server.url, spool) as client, pytest.raises(NotACheckpoint):
        client.model("a/b").save(state(1))
    assert not spool.exists()


@pytest.mark.parametrize("answer", [Answer(500), problem(507, "storage-full"), problem(503, "store-failed")])
def test_a_server_that_fails_is_a_server_that_is_away(answer: Answer, scripted: StartScripted, spool: Path) -> None:
    with impatient(scripted(in_turn(answer)).url, spool) as client:
        assert saved_while_away(client, 1, loss=2).loss == 2.0
    with (
        Client(scripted(in_turn(answer)).url, retries=0) as client,
        pytest.raises(Exception, match=r"answered|this is|failed with"),
    ):
        client.model("a/b").save(state(1))


def test_what_is_refused_later_is_kept_aside_and_stops_nothing(scripted: StartScripted, spool: Path) -> None:
    with impatient(AWAY, spool) as client:
        for number in range(3):
            saved_while_away(client, number)

    refusing = in_turn(problem(422, "hostile-checkpoint"), described())
    with impatient(scripted(refusing).url, spool, verify=False) as client:
        with pytest.warns(
            StateroomWarning, match="refused a waiting save .*kept in .*refused: this is hostile-checkpoint"
        ):
            assert len(client.send_spooled()) == 2
        assert waiting(spool) == []
        (aside,) = waiting(spool, ".refused")
        assert json.loads((aside / "reason.json").read_text())["code"] == "hostile-checkpoint"
        assert torch.load(aside / "checkpoint.pt")["epoch"] == 0
        assert client.send_spooled() == []


def test_a_token_that_may_not_write_refuses_no_file(scripted: StartScripted, spool: Path) -> None:
    with impatient(AWAY, spool) as client:
        saved_while_away(client, 1)
        with pytest.warns(StateroomWarning, match="waits in"):
            client.model("other/model").save(state(2))

    def script(request: Seen) -> Answer:
        return problem(401, "unauthorized") if "/models/a/b/" in request.path else described(model="other/model")

    with impatient(scripted(script).url, spool, verify=False) as client, pytest.raises(Unauthorized):
        client.send_spooled()
    (left,) = waiting(spool)
    assert json.loads((left / "fields.json").read_text())["model"] == "a/b"


def test_what_was_meant_for_another_server_goes_there_unless_one_says_so(scripted: StartScripted, spool: Path) -> None:
    with impatient(AWAY, spool) as client:
        saved_while_away(client, 1)
    other = scripted(in_turn(described()))
    with impatient(other.url, spool, verify=False) as client:
        client.model("a/b").save(state(2))
        assert len(other.seen) == 1
        assert len(client.send_spooled()) == 1


def test_while_something_waits_a_save_does_not_wait_for_the_server_again(
    spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with impatient(AWAY, spool) as client:
        saved_while_away(client, 1)
    caplog.clear()
    with Client(AWAY, spool_dir=spool) as client:
        saved_while_away(client, 2)
    assert [each for each in caplog.records if each.name == "stateroom"] == []


def test_a_spooled_checkpoint_is_no_ref_and_has_no_url(spool: Path) -> None:
    client = impatient(AWAY, spool)
    kept = saved_while_away(client, 1)
    assert isinstance(kept, Checkpoint)
    assert str(kept) == f"a/b (waits in {kept.path})"
    for call in (kept.url, lambda: client.model("a/b").load(kept), lambda: client.model("a/b").delete(kept)):
        with pytest.raises(InvalidRequest, match="yet"):
            call()


def test_where_nothing_can_be_written_the_servers_error_is_raised(tmp_path: Path, scripted: StartScripted) -> None:
    (tmp_path / "file").touch()
    server = scripted(in_turn(problem(507, "storage-full")))
    with (
        impatient(server.url, tmp_path / "file" / "spool") as client,
        pytest.raises(StorageFull, match="not be written to"),
    ):
        client.model("a/b").save(state(1))


def test_a_client_without_a_spool_has_nothing_to_send() -> None:
    with pytest.raises(InvalidRequest, match="no spool_dir"):
        Client(AWAY).send_spooled()


# Several processes, and crashes

SAVE = """
import sys, warnings, torch
from stateroom import Client
warnings.simplefilter("ignore")
url, spool, model, first, count = sys.argv[1:]
with Client(url, spool_dir=spool, retry_seconds=0) as client:
    for number in range(int(first), int(first) + int(count)):
        client.model(model).save({"epoch": number, "weight": torch.full((2000,), float(number))})
        print(number, flush=True)
"""


@pytest.fixture
def start(relay: Faulty, spool: Path, model_name: str, tmp_path: Path) -> Callable[..., Forked]:
    """Starts a process that saves ``count`` epochs from ``first`` on, and prints the number of each that is saved."""

    def start(first: int, count: int) -> Forked:
        output = tmp_path / f"saved-{first}"
        return start_script(SAVE, relay.url, spool, model_name, first, count, output=output, env={"NO_PROXY": "*"})

    return start


def test_processes_may_share_a_spool_and_nothing_is_stored_twice(
    server: Server, relay: Faulty, spool: Path, model_name: str, start: Callable[..., Forked]
) -> None:
    server.stop()
    assert [process.wait(300) for process in (start(0, 3), start(10, 3))] == [0, 0]
    assert len(waiting(spool)) == 6
    come_back(server)
    assert [process.wait(300) for process in (start(20, 2), start(30, 2))] == [0, 0]
    with Client(relay.url) as client:
        epochs = sorted(int(each.epoch or 0) for each in client.model(model_name).checkpoints())
    assert epochs == [0, 1, 2, 10, 11, 12, 20, 21, 30, 31]
    assert waiting(spool) == []


def test_a_killed_process_loses_nothing_that_save_returned_and_doubles_nothing(
    server: Server, relay: Faulty, spool: Path, model_name: str, tmp_path: Path, start: Callable[..., Forked]
) -> None:
    server.stop()
    process, printed = start(0, 1000), tmp_path / "saved-0"
    assert_soon(lambda: printed.read_text().count("\n") >= 3)
    process.kill()
    process.wait()
    done = [int(line) for line in printed.read_text().split()]
    come_back(server)
    process = start(5000, 1)
    process.kill()  # wherever it is
    process.wait()
    with Client(relay.url, spool_dir=spool) as client:
        client.send_spooled()
        epochs = [int(each.epoch or 0) for each in client.model(model_name).checkpoints()]
    assert len(epochs) == len(set(epochs))
    assert set(done) <= set(epochs)
