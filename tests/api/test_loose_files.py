"""Loose files: files that are written by name, before a checkpoint is made of them."""

import base64
import zlib
from typing import Any

import httpx
import pytest
from blake3 import blake3

from tests.api.conftest import problem
from tests.conftest import StartServer

STORAGE = bytes(range(256)) * 20


@pytest.fixture
def loose(model_name: str) -> str:
    return f"/v1/loose-files/{model_name}"


def recipe(before: bytes = b"head", storage: bytes = STORAGE, after: bytes = b"tail", **changes: Any) -> dict[str, Any]:
    """A file with one storage."""
    start = len(before)
    return {
        "size": start + len(storage) + len(after),
        "storages": [(start, start + len(storage))],
        "blocks": [blake3(storage).hexdigest()],
        "crc32s": [zlib.crc32(storage)],
        "rest": [base64.b64encode(piece).decode() for piece in (before, after)],
        "writer": "me",
        **changes,
    }


def plain(data: bytes, writer: str = "me") -> dict[str, Any]:
    rest = [base64.b64encode(data[at : at + 30_720]).decode() for at in range(0, len(data), 30_720)]
    return {"size": len(data), "storages": [], "blocks": [], "crc32s": [], "rest": rest, "writer": writer}


def write(http: httpx.Client, loose: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = http.put(loose, params={"path": path}, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def names(http: httpx.Client, loose: str, under: str = "") -> list[str]:
    return [each["path"] for each in http.get(loose, params={"under": under}).raise_for_status().json()["items"]]


def test_a_file_is_read_as_it_was_written(http: httpx.Client, loose: str, model_name: str) -> None:
    body = recipe()
    written = write(http, loose, "run/folder/a", body)
    assert (written["path"], written["bytes"], written["replaced"]) == ("run/folder/a", body["size"], None)
    (listed,) = http.get(loose).json()["items"]
    assert listed == written
    del body["writer"]
    found = http.get(f"{loose}/{written['number']}").json()
    assert found == {**body, "storages": [list(span) for span in body["storages"]]}
    assert problem(http.get(f"/v1/models/{model_name}/checkpoints")) == (404, "model-not-found")
    assert problem(http.get(f"{loose}-other/{written['number']}")) == (404, "loose-file-not-found")


def test_files_are_listed_by_their_folder_in_pages(http: httpx.Client, loose: str) -> None:
    paths = ["a", "a-b", "a/b", "a/b-c", "a/b/c", "a/c", "a0", "Ä/b"]
    for path in paths:
        write(http, loose, path, plain(b""))
    assert names(http, loose) == sorted(paths)
    assert names(http, loose, "a") == ["a", "a/b", "a/b-c", "a/b/c", "a/c"]
    assert names(http, loose, "a/b") == ["a/b", "a/b/c"]
    assert names(http, loose, "b") == []
    first = http.get(loose, params={"under": "a", "limit": 2}).json()
    rest = http.get(loose, params={"under": "a", "cursor": first["next"]}).json()
    assert [each["path"] for each in first["items"] + rest["items"]] == names(http, loose, "a")
    assert rest["next"] is None


def test_numbers_tell_what_another_writer_has_replaced(http: httpx.Client, loose: str) -> None:
    def newest() -> int:
        return http.get(loose, params={"under": "a"}).json()["newest"]

    assert newest() == 0
    first = write(http, loose, "a/b", plain(b"1"))
    again = write(http, loose, "a/b", plain(b"2"))
    assert first["number"] < again["number"] == newest()
    assert again["replaced"] is None
    theirs = write(http, loose, "a/b", plain(b"3", writer="other"))
    assert theirs["replaced"] == again["number"]
    mine = write(http, loose, "a/b", plain(b"4"))
    assert mine["replaced"] == theirs["number"]
    assert write(http, loose, "a/b", plain(b"5"))["replaced"] == theirs["number"]
    assert problem(http.get(f"{loose}/{mine['number']}")) == (404, "loose-file-not-found")
    before = newest()
    assert http.delete(loose, params={"under": "a/b"}).status_code == 204
    assert newest() > before
    assert write(http, loose, "a/b", plain(b"6"))["replaced"] > before


def test_files_are_removed_up_to_a_number(http: httpx.Client, loose: str) -> None:
    numbers = [write(http, loose, path, plain(b"x"))["number"] for path in ("a/b", "a/c", "a/d")]
    assert http.delete(loose, params={"under": "a", "upto": numbers[1]}).status_code == 204
    assert names(http, loose, "a") == ["a/d"]
    assert http.delete(loose, params={"under": "a"}).status_code == 204
    assert names(http, loose) == []
    assert problem(http.delete(loose, params={"under": "a"})) == (404, "loose-file-not-found")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"size": 1}, "bad-split"),
        ({"size": -1}, "invalid-value"),
        ({"storages": [(0, 4096)]}, "bad-split"),
        ({"storages": [(10, 4)]}, None),
        ({"blocks": []}, "bad-split"),
        ({"blocks": ["0" * 63]}, "bad-split"),
        ({"crc32s": []}, "bad-split"),
        ({"crc32s": [2**32]}, "bad-split"),
        ({"rest": ["no base64!"]}, "bad-split"),
        ({"rest": ["ä"]}, "bad-split"),
        ({"rest": ["AAAA"] * 9}, "bad-split"),
        ({"rest": "AAAA"}, "invalid-value"),
        ({"writer": ""}, "invalid-value"),
        ({"colour": "red"}, "invalid-value"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(
    changes: dict[str, Any], code: str | None, http: httpx.Client, loose: str
) -> None:
    answer = http.put(loose, params={"path": "a/b"}, json=recipe(**changes))
    assert answer.status_code == 422
    assert code is None or answer.json()["code"] == code, answer.text
    assert names(http, loose) == []


@pytest.mark.parametrize("number", range(4))  # on either database
def test_a_writer_that_no_database_stores_is_refused(number: int, http: httpx.Client, loose: str) -> None:
    answer = http.put(loose, params={"path": "a/b"}, json=plain(b"x", writer=f"{number}\0"))
    assert problem(answer) == (422, "bad-text"), answer.text
    assert names(http, loose) == []


PATHS = ["", "/a", "a//b", "../a", "a/..", "a\0b", "a\\b", "a/" * 60 + "b", "x" * 300, "nul"]


@pytest.mark.parametrize("path", PATHS, ids=[str(number) for number in range(len(PATHS))])
def test_a_path_that_no_folder_can_hold_is_refused(path: str, http: httpx.Client, loose: str) -> None:
    assert problem(http.put(loose, params={"path": path}, json=plain(b""))) == (422, "invalid-value")
    if path:
        for method in ("GET", "DELETE"):
            assert problem(http.request(method, loose, params={"under": path})) == (422, "invalid-value")
        assert problem(http.get(loose, params={"cursor": path})) == (422, "invalid-value")


def test_what_is_kept_of_files_counts_for_the_quota(http: httpx.Client, model_name: str) -> None:
    namespace = f"loose-{model_name.rpartition('-')[2]}"[:100]
    loose = f"/v1/loose-files/{namespace}/net"
    http.put(f"/v1/namespaces/{namespace}", json={"quota_bytes": 3_000}).raise_for_status()
    noise = blake3(b"noise").digest(2_000)
    write(http, loose, "a", plain(noise))
    write(http, loose, "a", plain(noise[1:]))  # in its place, not beside it
    assert problem(http.put(loose, params={"path": "b"}, json=plain(noise[::-1]))) == (507, "quota-exceeded")
    assert http.delete(loose, params={"under": "a"}).status_code == 204
    write(http, loose, "b", plain(noise[::-1]))


def test_files_outlive_a_restart(fresh_server: StartServer) -> None:
    server = fresh_server()
    with server.client() as http:
        write(http, "/v1/loose-files/a/b", "c/d", recipe())
    server.restart()
    with server.client() as http:
        assert names(http, "/v1/loose-files/a/b") == ["c/d"]
