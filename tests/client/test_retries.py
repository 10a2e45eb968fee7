"""Uploads over a network that loses connections: they are retried, and stored once."""

import io
import itertools
import logging
import socket
import ssl
import threading

import httpx
import pytest
import torch

from stateroom import Client, InvalidRequest, ServerUnavailable
from stateroom._http.retry import LONGEST_QUEUE, Limit, Notice, RetryPolicy, is_hopeless
from tests.api.conftest import general
from tests.client.conftest import Answer, StartScripted, described, in_turn, problem
from tests.client.faults import faulty
from tests.conftest import StartServer
from tests.support.proxy import Cut, answered, body_half_sent, body_sent, proxy_to
from tests.support.server import Server
from tests.support.waiting import assert_soon, is_spooling

LOST = Answer(drop=True)


def versions(http: httpx.Client, model: str) -> list[int]:
    return [each["version"] for each in http.get(f"/v1/models/{model}/checkpoints").json()["items"]]


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
    assert_soon(lambda: not is_spooling(server))
    assert versions(http, model_name) == [checkpoint.version]
    assert checkpoint.loss == 0.25


def test_a_save_whose_answer_is_lost_is_stored_once(server: Server, http: httpx.Client, model_name: str) -> None:
    with proxy_to(server.port, answered) as proxy, Client(proxy.url) as client:
        first = client.model(model_name).save({"weight": torch.ones(300, 300)})
        second = client.model(model_name).save({"weight": torch.ones(300, 300)})
        assert proxy.lost == [answered]
    assert_soon(lambda: not is_spooling(server))
    assert versions(http, model_name) == [second.version, first.version]  # each save is one of its own


def test_what_cannot_be_read_twice_is_not_sent_twice(server: Server, http: httpx.Client, model_name: str) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    http.post(f"/v1/models/{model_name}/checkpoints", content=general())
    with proxy_to(server.port, answered) as proxy, Client(proxy.url) as client, pytest.raises(ServerUnavailable):
        client.model(model_name).upload(Pipe(general(seed=5)))
    assert_soon(lambda: not is_spooling(server))
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
    from stateroom._upload.body import Body

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
        retry = RetryPolicy(Limit(1), Notice("http://host"), slept.append)
        while True:
            retry.queued(ServerUnavailable("busy"), 5.0)

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


# A server that is away


class Clock:
    """Time that goes by only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def wait_for_ever(retry: RetryPolicy) -> None:
    while True:
        retry.failed(ServerUnavailable("no answer"), wait=None)


def test_without_a_number_of_tries_a_server_may_be_away_for_a_minute() -> None:
    clock = Clock()
    retry = RetryPolicy(Limit(None), Notice("http://host"), clock.sleep, clock)
    with pytest.raises(ServerUnavailable, match=r"no answer \(tried \d+ times in 60\.0 s\)"):
        wait_for_ever(retry)
    assert clock.now == 60.0
    retry.succeeded()
    with pytest.raises(ServerUnavailable, match=r"in 60\.0 s"):
        wait_for_ever(retry)


def test_no_time_and_no_tries_are_one_try() -> None:
    for limit in (Limit(0), Limit(None, 0)):
        with pytest.raises(ServerUnavailable, match=r"^no answer$"):
            RetryPolicy(limit, Notice("http://host"), lambda _: pytest.fail("waits")).failed(
                ServerUnavailable("no answer")
            )


def test_a_save_outlives_a_restart_of_the_server(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    server.stop()
    with faulty(lambda: server.port) as relay, Client(relay.url, retry_seconds=600) as client:
        later = threading.Timer(0.5, server.restart)
        later.start()
        assert client.model("a/b").save({"weight": torch.ones(2000, 1000)}).version == 1
        later.join()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_about_to_stop_is_waited_for(status: int, scripted: StartScripted) -> None:
    stopping = problem(status, "shutting-down", **{"Retry-After": "0"})
    server = scripted(in_turn(LOST, stopping, stopping, described()))
    Client(server.url, verify=False).model("a/b").upload(io.BytesIO(b"file"))
    assert len({request.headers["Idempotency-Key"] for request in server.seen}) == 1


def test_the_log_says_once_that_a_server_is_waited_for(
    scripted: StartScripted, caplog: pytest.LogCaptureFixture
) -> None:
    server = scripted(in_turn(*[LOST] * 4, problem(503, "busy\x1b[2J"), described()))
    Client(server.url).model("a/b").checkpoint(1)
    said = [each.getMessage() for each in caplog.records if each.name == "stateroom"]
    assert len(said) == 1
    assert said[0].startswith(f"the connection to {server.url} failed")
    assert said[0].endswith("Retrying for up to 60 s.")
    assert [each.levelno for each in caplog.records if each.name == "stateroom"] == [logging.WARNING]


def chained(*errors: BaseException) -> BaseException:
    for error, cause in itertools.pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def test_a_name_that_does_not_exist_is_waited_for_only_if_it_was_there_before() -> None:
    unknown = chained(httpx.ConnectError("x"), OSError(), socket.gaierror(socket.EAI_NONAME, "unknown"))
    assert is_hopeless(unknown, was_reached=False)
    assert not is_hopeless(unknown, was_reached=True)
    assert not is_hopeless(socket.gaierror(socket.EAI_AGAIN, "try again"), was_reached=False)


def test_what_would_fail_alike_is_not_tried_again() -> None:
    assert is_hopeless(chained(httpx.ConnectError("x"), ssl.SSLCertVerificationError()), was_reached=True)
    assert is_hopeless(httpx.LocalProtocolError("x"), was_reached=True)
    assert not is_hopeless(httpx.ConnectError("refused"), was_reached=False)
    assert not is_hopeless(ssl.SSLEOFError(), was_reached=False)


@pytest.mark.parametrize("said", ["soon", "-1", "nan"])
def test_what_is_no_number_of_seconds_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATEROOM_RETRY_SECONDS", said)
    with pytest.raises(InvalidRequest, match="not a number of seconds"):
        Client()
