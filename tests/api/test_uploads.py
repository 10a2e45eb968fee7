"""Uploads in every form that a client may send."""

import shutil
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import Upload, exactly, general, problem, saved
from tests.conftest import StartServer
from tests.support.server import Server
from tests.support.waiting import assert_soon, is_spooling, requests_ended


def assert_nothing_is_left(server: Server, checkpoints: str, uploads: int = 1) -> None:
    """Assert that ``uploads`` failed, and left no checkpoint and no file."""
    assert_soon(lambda: requests_ended(server, checkpoints) == uploads)
    assert_soon(lambda: not is_spooling(server))
    with server.client() as http:
        assert http.get(checkpoints).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    "content_type", [None, "application/octet-stream", "application/x-www-form-urlencoded", "application/json"]
)
def test_the_raw_body_is_the_file_whatever_it_is_called(
    http: httpx.Client, checkpoints: str, method: str, content_type: str | None
) -> None:
    file = general()
    headers = {"Content-Type": content_type} if content_type else {}
    answer = http.request(method, checkpoints, content=file, headers=headers)
    assert answer.status_code == 201, answer.text
    checkpoint = answer.json()
    assert answer.headers["Location"] == checkpoint["urls"]["self"]
    assert answer.headers["Stateroom-Checkpoint"] == f"{checkpoint['model']}@1"
    assert checkpoint["sha256"] is None
    assert http.get(checkpoint["urls"]["original"]).content == file


def test_a_body_of_unknown_length_is_taken(http: httpx.Client, checkpoints: str) -> None:
    file = general()
    answer = http.post(checkpoints, content=iter([file[:1000], file[1000:]]))
    assert answer.status_code == 201
    assert answer.json()["bytes"] == len(file)


@pytest.mark.parametrize("file_first", [True, False])
def test_a_form_is_taken_with_its_fields_before_or_after_the_file(
    http: httpx.Client, checkpoints: str, file_first: bool
) -> None:
    file = general(epoch=3)
    fields = [(name, (None, text)) for name, text in {"epoch": "7", "metric.acc": "0.9", "tag.a": "zoë"}.items()]
    part = [("file", ("model.pt", file))]
    answer = http.post(checkpoints, files=[*part, *fields] if file_first else [*fields, *part], params={"step": 5})
    assert answer.status_code == 201, answer.text
    checkpoint = answer.json()
    assert (checkpoint["epoch"], checkpoint["step"]) == (7, 5)
    assert (checkpoint["metrics"], checkpoint["tags"]) == ({"acc": 0.9}, {"a": "zoë"})
    assert http.get(checkpoint["urls"]["original"]).content == file


def test_fields_win_over_what_the_file_says(upload: Upload) -> None:
    lifted = upload(general(epoch=3, loss=0.5))
    assert (lifted["epoch"], lifted["loss"]) == (3, 0.5)
    given = upload(general(epoch=3, loss=0.5), epoch=4, loss=0.25, run="a", **{"metric.f1": 1, "tag.x": "y"})
    assert (given["epoch"], given["loss"], given["run"]) == (4, 0.25, "a")
    assert (given["metrics"]["f1"], given["tags"]) == (1.0, {"x": "y"})


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"epcoh": "3"}, "unknown-parameter"),
        ({"epoch": "three"}, "invalid-value"),
        ({"loss": "0.1", "metric.a": "x"}, "invalid-value"),
    ],
)
def test_a_form_with_a_wrong_field_after_its_file_leaves_nothing_behind(
    server: Server, http: httpx.Client, checkpoints: str, form: dict[str, str], code: str
) -> None:
    parts = [("file", ("m.pt", general())), *((name, (None, text)) for name, text in form.items())]
    assert problem(http.post(checkpoints, files=parts)) == (422, code)
    assert_nothing_is_left(server, checkpoints)


def test_a_field_given_in_the_query_and_in_the_form_is_refused(http: httpx.Client, checkpoints: str) -> None:
    parts = [("file", ("m.pt", general())), ("epoch", (None, "1"))]
    assert problem(http.post(checkpoints, files=parts, params={"epoch": 1})) == (422, "repeated-parameter")


def test_a_form_without_a_file_is_malformed(http: httpx.Client, checkpoints: str) -> None:
    assert problem(http.post(checkpoints, files={"epoch": (None, "3")})) == (400, "malformed-request")


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "not-a-checkpoint"), (b"hello", "not-a-checkpoint"), (saved({"epoch": 1}), "no-tensors")],
)
def test_a_refused_upload_leaves_nothing_behind(
    server: Server, http: httpx.Client, checkpoints: str, body: bytes, code: str
) -> None:
    assert problem(http.post(checkpoints, content=body)) == (422, code)
    assert_nothing_is_left(server, checkpoints)


def _raw(server: Server, head: str, body: bytes, *, shut: bool = True) -> bytes:
    """Say ``head`` and ``body`` over a bare socket, then stop talking; what the server said."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
            if not shut and b"\r\n\r\n" in answer:
                break
        return answer


def test_a_body_that_ends_early_leaves_nothing_behind(server: Server, checkpoints: str) -> None:
    file = general()
    _raw(
        server,
        f"POST {checkpoints} HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: {len(file)}",
        file[: len(file) // 2],
    )
    assert_nothing_is_left(server, checkpoints)
    chunk = b"%x\r\n%s\r\n" % (len(file), file)
    _raw(
        server, f"POST {checkpoints} HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked", chunk
    )  # no last chunk
    assert_nothing_is_left(server, checkpoints, uploads=3)  # and the GET before


def test_a_form_that_ends_early_leaves_nothing_behind(server: Server, http: httpx.Client, checkpoints: str) -> None:
    request = http.build_request("POST", checkpoints, files={"file": ("m.pt", general())})
    whole = request.read()
    answer = http.post(checkpoints, content=whole[:-20], headers={"Content-Type": request.headers["Content-Type"]})
    assert problem(answer) == (400, "incomplete-upload")
    assert_nothing_is_left(server, checkpoints)


def test_what_is_wrong_with_the_address_is_said_before_the_body_is_asked_for(server: Server) -> None:
    head = "Host: a.localhost\r\nContent-Length: 1000000000\r\nExpect: 100-continue"
    for path in ("/v1/models/a/b/checkpoints?epcoh=3", "/v1/models/a/-b/checkpoints", "/v1/models/a/b/nowhere"):
        answer = _raw(server, f"PUT {path} HTTP/1.1\r\n{head}", b"", shut=False)
        assert b"100 Continue" not in answer
        assert answer.split()[1] in {b"422", b"404"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("how", ["-T", "-F"])
def test_curl_uploads_a_file(server: Server, http: httpx.Client, checkpoints: str, tmp_path: Path, how: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(general(size=1200))  # large enough for curl to ask first: Expect: 100-continue
    url = f"{server.base_url}{checkpoints}?loss=0.25"
    argument = [how, str(path)] if how == "-T" else [how, f"file=@{path}", "-F", "epoch=9"]
    done = subprocess.run(["curl", "-sS", "--fail-with-body", *argument, url], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    checkpoint = http.get(f"{checkpoints}/latest").json()
    assert (checkpoint["loss"], checkpoint["epoch"]) == (0.25, 9 if how == "-F" else 3)
    assert http.get(checkpoint["urls"]["original"]).content == path.read_bytes()


@pytest.mark.parametrize(
    "model", ["a/..", "../b", "-a/b", "a/b%20c", "a/" + "b" * 129, "a/b%2Fc", "a/.b", "%C3%A9/b", "a/b..c"]
)
def test_a_bad_model_name_is_refused(server: Server, model: str) -> None:
    answer = exactly(server, "POST", f"/v1/models/{model}/checkpoints", general())
    assert problem(answer) == (422, "bad-model-name")


def test_two_uploads_of_one_epoch_at_once_are_two_versions(server: Server, checkpoints: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def send(seed: int) -> httpx.Response:
        with server.client() as http:
            return http.post(checkpoints, content=general(epoch=1, seed=seed), params={"epoch": 1})

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, range(4)))
    assert sorted(answer.json()["version"] for answer in answers) == [1, 2, 3, 4]


def test_an_upload_in_flight_is_gone_after_a_crash(fresh_server: StartServer) -> None:
    server = fresh_server()
    file = general()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        head = f"POST /v1/models/a/b/checkpoints HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: {len(file)}\r\n\r\n"
        connection.sendall(head.encode() + file[:-1])
        assert_soon(lambda: is_spooling(server))
        server.restart()
    assert_nothing_is_left(server, "/v1/models/a/b/checkpoints", uploads=0)
