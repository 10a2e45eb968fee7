"""Uploads over a network that loses connections: tried again, and stored once."""

import io
import time

import httpx
import pytest
import torch

from stateroom import Client, ServerUnavailable
from stateroom._http import LONGEST_QUEUE, Patience
from tests.api.conftest import general
from tests.client.conftest import Answer, StartScripted, described, in_turn, problem
from tests.conftest import StartServer
from tests.proxy import Cut, answered, body_half_sent, body_sent, proxy_to
from tests.server import Server

LOST = Answer(drop=True)


def versions(http: httpx.Client, model: str) -> list[int]:
    return [each["version"] for each in http.get(f"/v1/models/{model}/checkpoints").json()["items"]]


def settled(server: Server) -> bool:
    """Whether no upload is on its way, nor being cleaned up after."""
    deadline = time.monotonic() + 30
    while any((server.data_dir / "spool").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    "cuts",  # what is stored already is answered before its body has come: so no cut of a body after another's answer
    [(body_half_sent,), (body_sent,), (answered,), (body_half_sent, body_sent, answered)],
    ids=lambda cuts: "-".join(cut.__name__ for cut in cuts),
)
def test_an_upload_whose_connection_is_lost_is_stored_once(
    server: Server, http: httpx.Client, model_name: str, cuts: tuple[Cut, ...]
) -> None:
    with proxy_to(server.port, *cuts) as proxy, Client(proxy.url) as client:
        checkpoint = client.model(model_name).upload(io.BytesIO(general(seed=len(cuts), size=400)), loss=0.25)
        assert proxy.lost == list(cuts)
    assert settled(server)
    assert versions(http, model_name) == [checkpoint.version]
    assert checkpoint.loss == 0.25


def test_a_save_whose_answer_is_lost_is_stored_once(server: Server, http: httpx.Client, model_name: str) -> None:
    with proxy_to(server.port, answered) as proxy, Client(proxy.url) as client:
        first = client.model(model_name).save({"weight": torch.ones(300, 300)})
        second = client.model(model_name).save({"weight": torch.ones(300, 300)})
        assert proxy.lost == [answered]
    assert settled(server)
    assert versions(http, model_name) == [second.version, first.version]  # each save is one of its own


def test_what_cannot_be_read_twice_is_not_sent_twice(server: Server, http: httpx.Client, model_name: str) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    http.post(f"/v1/models/{model_name}/checkpoints", content=general())
    with proxy_to(server.port, answered) as proxy, Client(proxy.url) as client, pytest.raises(ServerUnavailable):
        client.model(model_name).upload(Pipe(general(seed=5)))
    assert settled(server)
    assert versions(http, model_name) == [2, 1]


def test_each_try_of_an_upload_has_its_key_and_each_upload_another(scripted: StartScripted) -> None:
    server = scripted(in_turn(LOST, Answer(502), problem(408, "request-timeout"), described()))
    client = Client(server.url, verify=False)
    client.model("a/b").upload(io.BytesIO(b"file"))
    client.model("a/b").upload(io.BytesIO(b"file"))
    keys = [request.headers["Idempotency-Key"] for request in server.seen]
    assert [request.body for request in server.seen] == [b"file"] * 5
    assert len(set(keys[:4])) == 1
    assert len(set(keys)) == 2


def test_an_answer_that_comes_before_the_whole_body_is_checked_all_the_same(
    server: Server, http: httpx.Client, model_name: str
) -> None:
    """A server may answer a retry and close; what it stored is then compared with the file, not with what was sent."""
    file = general(size=3000)
    stored = http.post(f"/v1/models/{model_name}/checkpoints", content=file).json()
    from stateroom._transfer import Body

    body = Body(io.BytesIO(file), label="x", progress=None, verify=True)
    next(iter(body()))
    body.check(stored["digest"])


def test_a_server_with_too_many_uploads_is_come_back_to_more_often_than_a_broken_one(scripted: StartScripted) -> None:
    busy = problem(503, "too-many-uploads", **{"Retry-After": "0"})
    server = scripted(in_turn(*[busy] * 9, described()))
    Client(server.url, retries=1, verify=False).model("a/b").upload(io.BytesIO(b"file"))
    assert len(server.seen) == 10
    impatient = scripted(in_turn(busy))
    with pytest.raises(ServerUnavailable):
        Client(impatient.url, retries=0).model("a/b").upload(io.BytesIO(b"file"))


def test_a_queue_is_left_after_a_while_and_its_waits_differ() -> None:
    slept: list[float] = []

    def queue_for_ever() -> None:
        patience = Patience(1, slept.append)
        while True:
            patience.queued(ServerUnavailable("busy"), 5.0)

    with pytest.raises(ServerUnavailable):
        queue_for_ever()
    assert LONGEST_QUEUE <= sum(slept) < LONGEST_QUEUE + 10
    assert len(set(slept)) > len(slept) / 2


def test_clients_that_find_too_many_uploads_are_all_served_in_the_end(fresh_server: StartServer) -> None:
    from concurrent.futures import ThreadPoolExecutor

    server = fresh_server("--max-uploads", "1", env={"STATEROOM_DURABLE": "off"})

    def save(number: int) -> int:
        with Client(server.base_url) as client:
            return client.model("a/b").upload(io.BytesIO(general(seed=number, size=500))).version

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(save, range(6))) == [1, 2, 3, 4, 5, 6]
