import io
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from stateroom import (
    CheckpointNotFound,
    Client,
    InvalidRequest,
    ServerError,
    ServerUnavailable,
    StateroomError,
    Unauthorized,
)
from stateroom._http.retry import LONGEST_BACKOFF, Limit, Notice, RetryPolicy, retry_after
from tests.client.conftest import Answer, Seen, StartScripted, described, in_turn, problem
from tests.support.ports import held_port
from tests.support.waiting import LONG_ENOUGH

LOST = Answer(drop=True)


def test_what_is_read_is_asked_for_again_when_the_connection_is_lost(scripted: StartScripted) -> None:
    server = scripted(in_turn(LOST, LOST, described(version=7)))
    assert Client(server.url, retries=2).model("a/b").checkpoint("latest").version == 7
    assert len(server.seen) == 3


def test_after_all_tries_the_server_is_unavailable(scripted: StartScripted) -> None:
    server = scripted(in_turn(LOST))
    with pytest.raises(ServerUnavailable, match=server.url):
        Client(server.url, retries=1).model("a/b").checkpoint("latest")
    assert len(server.seen) == 2


def test_where_nothing_listens_the_error_names_the_address() -> None:
    with held_port() as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(ServerUnavailable, match=f"no Stateroom server responds at {url}"):
            Client(url, retries=1).model("a/b").checkpoint("latest")


def test_a_server_that_starts_late_is_waited_for_even_by_an_upload(scripted: StartScripted) -> None:
    with held_port() as port:
        timer = threading.Timer(0.3, scripted, [lambda _: described(digest="anything"), port])
        timer.start()
        model = Client(f"http://127.0.0.1:{port}", retry_seconds=LONG_ENOUGH, verify=False).model("a/b")
        assert model.upload(io.BytesIO(b"file")).version == 1
        timer.join()


def test_what_is_not_safe_is_not_asked_for_again_once_the_server_may_have_done_it(scripted: StartScripted) -> None:
    server = scripted(in_turn(LOST, described()))
    with pytest.raises(ServerUnavailable):
        Client(server.url, retries=5).model("a/b").delete(1)
    assert [request.method for request in server.seen] == ["DELETE"]


def test_an_upload_that_the_server_did_not_take_is_sent_again_from_its_start(scripted: StartScripted) -> None:
    busy = problem(503, "store-failed", **{"Retry-After": "0"})
    server = scripted(in_turn(busy, busy, described()))
    file = io.BytesIO(b"....file")
    file.seek(4)
    Client(server.url, retries=2, verify=False).model("a/b").upload(file)
    assert [request.body for request in server.seen] == [b"file"] * 3


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxys_lost_answer_is_asked_for_again_only_when_that_is_safe(status: int, scripted: StartScripted) -> None:
    server = scripted(in_turn(Answer(status), described()))
    assert Client(server.url, retries=1).model("a/b").checkpoint(1).version == 1
    server = scripted(in_turn(Answer(status), described()))
    with pytest.raises(ServerUnavailable):
        Client(server.url, retries=1).model("a/b").delete(1)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 410, 413, 422, 500, 501, 507])
def test_an_answer_that_will_not_change_is_not_asked_for_again(status: int, scripted: StartScripted) -> None:
    server = scripted(in_turn(Answer(status)))
    with pytest.raises(StateroomError):
        Client(server.url, retries=3).model("a/b").checkpoint(1)
    assert len(server.seen) == 1


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after(None) is None
    assert retry_after("17") == 17.0
    assert [retry_after(said) for said in ("soon", "\xb2", "-1", "9" * 5000, "")] == [None] * 5
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=1000), usegmt=True)
    assert 800 < (retry_after(later) or 0) <= 1000
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def waits(tries: int, wait: float | None = None) -> list[float]:
    """How long each of so many failures is waited for, before the last is raised."""
    slept: list[float] = []
    retry = RetryPolicy(Limit(tries), Notice("http://host"), slept.append)
    for _ in range(tries):
        retry.failed(ServerUnavailable("why"), wait=wait)
    with pytest.raises(ServerUnavailable):
        retry.failed(ServerUnavailable("why"), wait=wait)
    return slept


def test_each_wait_is_anything_up_to_twice_the_most_of_the_one_before_and_to_a_limit() -> None:
    many = [waits(8) for _ in range(200)]
    for number, most in enumerate([0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_BACKOFF, LONGEST_BACKOFF, LONGEST_BACKOFF]):
        slept = [each[number] for each in many]
        assert 0 <= min(slept) < most / 4
        assert most * 3 / 4 < max(slept) <= most


def test_the_wait_that_the_server_asks_for_is_kept_within_reason() -> None:
    assert [int(each) for each in waits(2, wait=17.0)] == [17, 17]
    assert 60 <= waits(1, wait=3600.0)[0] <= 61


def test_a_server_that_asks_to_come_back_is_come_back_to(scripted: StartScripted) -> None:
    server = scripted(in_turn(problem(429, "too-many", **{"Retry-After": "0"}), described()))
    assert Client(server.url).model("a/b").checkpoint(1).version == 1


def test_the_token_travels_and_is_not_shown(scripted: StartScripted, monkeypatch: pytest.MonkeyPatch) -> None:
    server = scripted(in_turn(described()))
    monkeypatch.setenv("STATEROOM_URL", server.url + "/")
    monkeypatch.setenv("STATEROOM_TOKEN", "from-env")
    Client().model("a/b").checkpoint(1)
    Client(token="given").model("a/b").checkpoint(1)
    assert [each.headers["Authorization"] for each in server.seen] == ["Bearer from-env", "Bearer given"]
    assert repr(Client()) == f"Client({server.url!r})"


def test_a_redirect_is_an_error_and_takes_no_token_elsewhere(scripted: StartScripted) -> None:
    elsewhere = scripted(in_turn(described()))
    server = scripted(in_turn(Answer(308, headers={"Location": elsewhere.url})))
    with pytest.raises(InvalidRequest, match=elsewhere.url):
        Client(server.url, "secret").model("a/b").checkpoint(1)
    assert elsewhere.seen == []


def test_a_server_below_a_path_is_spoken_to_there(scripted: StartScripted) -> None:
    server = scripted(in_turn(described()))
    Client(server.url + "/stateroom/").model("a/b").checkpoint("min:val loss")
    assert server.seen[0].path == "/stateroom/v1/models/a/b/checkpoints/min:val%20loss"


@pytest.mark.parametrize("url", ["localhost:8765", "ftp://host", "http://", "http://host/?a=b", "x"])
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidRequest):
        Client(url)


def test_the_run_marks_uploads_and_narrows_what_is_read(
    scripted: StartScripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = scripted(in_turn(described()))
    monkeypatch.setenv("STATEROOM_RUN", "night")
    client = Client(server.url, verify=False)
    client.model("a/b").upload(io.BytesIO(b"file"))
    checkpoint = client.model("a/b").checkpoint("best")
    client.model("a/b", run="day").checkpoint("best")
    client.model("a/b", run="").checkpoint("best")
    client.model("a/b").checkpoint(checkpoint)
    queries = [request.path.partition("?")[2] for request in server.seen]
    assert queries == ["run=night", "run=night", "run=day", "", ""]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(401, "unauthorized"), Unauthorized),
        (problem(404, "checkpoint-not-found"), CheckpointNotFound),
        (problem(500, "internal-error"), ServerError),
    ],
)
def test_default_is_for_what_is_not_there_and_for_nothing_else(
    answer: Answer, kind: type[StateroomError], scripted: StartScripted
) -> None:
    model = Client(scripted(in_turn(answer)).url).model("a/b")
    with pytest.raises(kind):
        model.load("latest")
    if kind is CheckpointNotFound:
        assert model.load("latest", default=None) is None
    else:
        with pytest.raises(kind):
            model.load("latest", default=None)


def test_a_listing_is_fetched_page_by_page_as_it_is_taken(scripted: StartScripted) -> None:
    def script(request: Seen) -> Answer:
        page = 1 if "cursor=" not in request.path else int(request.path.partition("cursor=")[2])
        item = described(version=page).body.decode()
        after = "null" if page == 3 else f'"{page + 1}"'
        return Answer(body=f'{{"items": [{item}], "next": {after}}}'.encode())

    server = scripted(script)
    listing = Client(server.url).model("a/b").checkpoints(order="-loss", where={"epoch.ge": 3, "tag.x": "y"})
    assert server.seen == []
    assert next(listing).version == 1
    assert [request.path.partition("?")[2] for request in server.seen] == ["order=-loss&epoch.ge=3&tag.x=y"]
    assert [each.version for each in listing] == [2, 3]
    assert server.seen[-1].path.endswith("order=-loss&epoch.ge=3&tag.x=y&cursor=3")
