"""A retry with the idempotency key of a stored upload gets the same answer."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import httpx
import pytest

from tests.api.conftest import general, problem
from tests.support.negotiating import InParts
from tests.support.server import Server

FILE, OTHER = general(seed=1), general(seed=2, size=65)


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def versions(http: httpx.Client, checkpoints: str) -> list[int]:
    return sorted(item["version"] for item in http.get(checkpoints).json()["items"])


def test_a_retry_is_answered_as_the_first_was_and_stores_nothing(http: httpx.Client, checkpoints: str) -> None:
    first = http.post(checkpoints, content=FILE, headers=keyed("one"), params={"epoch": 7})
    assert first.status_code == 201
    assert "Idempotency-Replayed" not in first.headers
    again = http.post(checkpoints, content=FILE, headers=keyed("one"), params={"epoch": 7})
    assert (again.status_code, again.json()) == (201, first.json())
    assert (again.headers["Location"], again.headers["Idempotency-Replayed"]) == (first.headers["Location"], "true")
    assert versions(http, checkpoints) == [1]


@pytest.mark.parametrize("how", ["raw", "chunked", "form"])
def test_a_retry_may_take_another_way(http: httpx.Client, checkpoints: str, how: str) -> None:
    http.post(checkpoints, content=FILE, headers=keyed("one")).raise_for_status()
    body: dict = {"raw": {"content": FILE}, "chunked": {"content": iter([FILE])}, "form": {"files": {"file": FILE}}}[
        how
    ]
    assert http.post(checkpoints, headers=keyed("one"), **body).json()["version"] == 1
    assert versions(http, checkpoints) == [1]


def test_another_file_under_the_same_key_is_refused(http: httpx.Client, checkpoints: str) -> None:
    http.post(checkpoints, content=FILE, headers=keyed("one")).raise_for_status()
    answer = http.post(checkpoints, content=OTHER, headers=keyed("one"))
    assert problem(answer) == (422, "idempotency-key-reused")
    assert versions(http, checkpoints) == [1]


def test_a_key_is_one_models_own(http: httpx.Client, checkpoints: str) -> None:
    http.post(checkpoints, content=FILE, headers=keyed("one")).raise_for_status()
    elsewhere = http.post(
        checkpoints.replace("/checkpoints", "-other/checkpoints"), content=OTHER, headers=keyed("one")
    )
    assert (elsewhere.status_code, elsewhere.json()["version"]) == (201, 1)


def test_what_was_refused_has_not_used_the_key_up(http: httpx.Client, checkpoints: str) -> None:
    assert problem(http.post(checkpoints, content=b"none", headers=keyed("one")))[0] == 422
    assert http.post(checkpoints, content=FILE, headers=keyed("one")).status_code == 201


def test_a_deleted_checkpoint_frees_its_key(http: httpx.Client, checkpoints: str) -> None:
    http.post(checkpoints, content=FILE, headers=keyed("one")).raise_for_status()
    http.delete(f"{checkpoints}/1").raise_for_status()
    assert http.post(checkpoints, content=FILE, headers=keyed("one")).json()["version"] == 2


def test_without_a_key_the_same_file_is_another_version(http: httpx.Client, checkpoints: str) -> None:
    assert [http.post(checkpoints, content=FILE).json()["version"] for _ in range(2)] == [1, 2]


def test_retries_at_once_are_one_checkpoint(server: Server, checkpoints: str) -> None:
    together = Barrier(6)

    def send(_: int) -> httpx.Response:
        with server.client() as http:
            http.get("/healthz")
            together.wait(60)
            return http.post(checkpoints, content=FILE, headers=keyed("one"))

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(send, range(6)))
    assert {(answer.status_code, answer.json()["version"]) for answer in answers} == {(201, 1)}
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    with server.client() as http:
        assert versions(http, checkpoints) == [1]


@pytest.mark.parametrize(
    "headers",
    [
        [("Idempotency-Key", "")],
        [("Idempotency-Key", "a b")],
        [("Idempotency-Key", "x" * 256)],
        [("Idempotency-Key", "one"), ("Idempotency-Key", "two")],
    ],
    ids=["empty", "blank", "long", "two"],
)
def test_a_key_that_is_none_is_refused(http: httpx.Client, checkpoints: str, headers: list[tuple[str, str]]) -> None:
    assert problem(http.post(checkpoints, content=FILE, headers=headers)) == (422, "bad-idempotency-key")


def test_a_file_that_came_in_parts_meanwhile_is_the_same_upload(http: httpx.Client, checkpoints: str) -> None:
    """A client that lost the answer to its commit sends the file in one piece, under the same key."""
    model = checkpoints.removeprefix("/v1/models/").removesuffix("/checkpoints")
    file, other = InParts(general(seed=3)), general(seed=4, size=65)

    def then_commit(data: bytes, key: str) -> Iterator[bytes]:
        upload = file.announce(http, model)
        file.send(http, upload)
        yield data[:1000]
        http.post(f"{upload['url']}/commit", headers=keyed(key)).raise_for_status()
        yield data[1000:]

    with http_to(http) as sender:
        first = sender.post(checkpoints, content=then_commit(file.data, "one"), headers=keyed("one"))
        assert (first.status_code, first.json()["version"]) == (201, 1)
        refused = sender.post(checkpoints, content=then_commit(other, "two"), headers=keyed("two"))
        assert problem(refused) == (422, "idempotency-key-reused")
    assert versions(http, checkpoints) == [1, 2]


def http_to(http: httpx.Client) -> httpx.Client:
    """Another client of the same server."""
    return httpx.Client(base_url=http.base_url, timeout=60, trust_env=False, verify=False)
