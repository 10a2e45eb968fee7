"""Requests with a false length, an invalid name or a meaningless value leave nothing behind."""

import json
from email.message import Message
from pathlib import Path

import pytest

from tests.functional.audited import Audited, assert_leaks_nothing, trace, whole_checkpoint
from tests.functional.conftest import HttpModel
from tests.support.raw_http import hang_up, post, post_whole, raw
from tests.support.waiting import assert_soon


@pytest.mark.parametrize("half", [True, False], ids=["half closed", "hung up"])
@pytest.mark.parametrize("sent", [0, 1000, None], ids=["nothing sent", "a little sent", "all but a byte sent"])
def test_a_body_shorter_than_it_said_leaves_nothing(
    audited: Audited, target: HttpModel, sent: int | None, half: bool
) -> None:
    data, before = whole_checkpoint(), trace(audited.server)
    said = len(data) + (1 if sent is None else 0)
    request = post(target.url(), f"Content-Length: {said}", body=data if sent is None else data[:sent])
    assert b" 201 " not in hang_up(audited.server, request, half=half)
    assert_soon(lambda: trace(audited.server) == before)


def test_a_body_longer_than_it_said_is_refused_and_leaves_nothing(audited: Audited, target: HttpModel) -> None:
    """What it is cut to is no checkpoint, and what comes after it is no request: either may be answered first."""
    data, before = whole_checkpoint(), trace(audited.server)
    status, body = raw(audited.server, post(target.url(), f"Content-Length: {len(data) - 1000}", body=data))
    assert status in {400, 422}
    assert_leaks_nothing(audited.server, body.decode())
    assert_soon(lambda: trace(audited.server) == before)


@pytest.mark.parametrize("length", ["-1", "ten", "1e3", "99999999999999999999999"])
def test_a_content_length_that_is_no_length_is_refused(audited: Audited, target: HttpModel, length: str) -> None:
    before = trace(audited.server)
    status, body = raw(audited.server, post(target.url(), f"Content-Length: {length}", body=whole_checkpoint()))
    assert status in {400, 413, 507}
    assert_leaks_nothing(audited.server, body.decode(errors="replace"))
    assert_soon(lambda: trace(audited.server) == before)


def test_chunks_that_end_early_leave_nothing_and_chunks_that_end_well_are_a_checkpoint(
    audited: Audited, target: HttpModel
) -> None:
    data, before = whole_checkpoint(), trace(audited.server)
    chunk = f"{len(data):x}\r\n".encode() + data + b"\r\n"
    hang_up(audited.server, post(target.url(), "Transfer-Encoding: chunked", body=chunk))
    assert_soon(lambda: trace(audited.server) == before)
    answer = target.http.post(target.url(), content=iter([data[:1000], data[1000:]]))
    assert answer.status_code == 201


BAD_NAMES = [
    *("tests/..", "../tests", "../..", "tests/.", "tests/a..b", "tests/.hidden", "%2e%2e/%2e%2e", "tests/%2e%2e"),
    *(
        "tests/a%20b",
        "tests/-a",
        "tests/%C3%A9",
        f"tests/{'a' * 129}",
        "tests/a%00",
        "tests/a%0a",
        "tests/a:b",
        "tests/~",
    ),
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_none_is_refused_and_leaves_nothing(audited: Audited, name: str) -> None:
    before = trace(audited.server)
    status, body = raw(audited.server, post_whole(f"/v1/models/{name}/checkpoints", whole_checkpoint()))
    assert (status, json.loads(body)["code"]) == (422, "bad-model-name")
    assert trace(audited.server) == before


@pytest.mark.parametrize("name", ["..%2f..", "tests/..%2f..%2fx", "a/b/c", "a", "/"])
def test_a_name_of_too_few_or_many_parts_is_no_route_and_leaves_nothing(audited: Audited, name: str) -> None:
    before = trace(audited.server)
    status, body = raw(audited.server, post_whole(f"/v1/models/{name}/checkpoints", whole_checkpoint()))
    assert status in {404, 405, 422}
    assert json.loads(body)["code"]
    assert trace(audited.server) == before


BAD_REFS = ["..", "%2e%2e", "..%2f..%2fcatalog.sqlite3", "../../../etc/passwd", "0", "-1", "v0", "1.5"]


@pytest.mark.parametrize("ref", BAD_REFS)
def test_a_ref_that_is_none_reads_nothing(audited: Audited, target: HttpModel, ref: str) -> None:
    target.upload(whole_checkpoint())
    request = f"GET {target.url()}/{ref}/original HTTP/1.1\r\nHost: localhost\r\n\r\n"
    status, body = raw(audited.server, request.encode())
    assert status in {400, 404, 422}
    assert json.loads(body)["code"]
    assert_leaks_nothing(audited.server, body.decode())


@pytest.mark.parametrize("name", ["../../evil.pt", "/evil.pt", "..\\evil.pt", "evil.pt"])
def test_the_name_of_an_uploaded_file_is_no_path_here(audited: Audited, target: HttpModel, name: str) -> None:
    answer = target.http.post(target.url(), files={"file": (name, whole_checkpoint())})
    assert answer.status_code == 201
    assert not [*audited.server.data_dir.parent.rglob("*evil*")]
    assert not Path("/evil.pt").exists()


@pytest.mark.parametrize("name", ["..%2f..%2fevil.pt", "evil%0d%0aSet-Cookie:a=b", "evil%22;filename=%22x", "evil%00"])
def test_the_name_a_download_is_asked_for_under_is_only_a_name(target: HttpModel, name: str) -> None:
    target.upload(whole_checkpoint())
    answer = target.http.head(f"{target.url('1/file')}/{name}")
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    message = Message()
    message["Content-Disposition"] = answer.headers["Content-Disposition"].partition("; filename*=")[0]
    assert not set(message.get_filename() or "/") & set('/\\"\0\r\n')


@pytest.mark.parametrize(
    "query", ["epoch=three", "epoch=1.5", "loss=low", "epoch=1&epoch=2", "epohc=1", "metric.=1", "metric.a=b", "tag.=x"]
)
def test_a_field_that_is_none_is_refused_and_leaves_nothing(audited: Audited, target: HttpModel, query: str) -> None:
    before = trace(audited.server)
    answer = target.http.post(f"{target.url()}?{query}", content=whole_checkpoint())
    assert answer.status_code in {400, 422}
    assert answer.json()["code"]
    assert_leaks_nothing(audited.server, answer.text)
    assert trace(audited.server) == before
