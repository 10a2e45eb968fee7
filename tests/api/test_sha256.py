"""SHA-256 over HTTP: of an upload that says it, and of an uploaded file when somebody wants it (RFC 9530)."""

import base64
import hashlib

import httpx
import pytest

from tests.api.conftest import Upload, general, problem
from tests.support.negotiating import InParts

FILE = general(seed=11)
SHA256 = hashlib.sha256(FILE).hexdigest()
WANTED = {"Want-Repr-Digest": "sha-256=1"}


def field(data: bytes = FILE) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def nothing_is_stored(http: httpx.Client, checkpoints: str) -> bool:
    return http.get(checkpoints).status_code == 404


SAID = {
    "of the representation": [("Repr-Digest", field())],
    "of the content": [("Content-Digest", field())],
    "both": [("Repr-Digest", field()), ("Content-Digest", field())],
    "beside another algorithm": [("Repr-Digest", f"sha-512=:AAAA:, {field()}")],
    "in a line of its own": [("Repr-Digest", "unixsum=3"), ("Repr-Digest", field())],
    "with a parameter": [("Repr-Digest", f"{field()};of=me")],
}


@pytest.mark.parametrize("headers", SAID.values(), ids=SAID)
def test_a_sha256_that_an_upload_says_is_kept(
    http: httpx.Client, checkpoints: str, headers: list[tuple[str, str]]
) -> None:
    answer = http.post(checkpoints, content=FILE, headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.json()["sha256"] == http.get(f"{checkpoints}/1").json()["sha256"] == SHA256
    assert answer.json()["urls"]["original"].endswith(f"-v1-{SHA256[:8]}.pt")  # torch.hub's check_hash
    assert http.head(f"{checkpoints}/1/original").headers["Repr-Digest"] == field()


@pytest.mark.parametrize("name", ["Repr-Digest", "Content-Digest"])
@pytest.mark.parametrize("says_its_size", [True, False])
def test_a_body_with_another_sha256_is_refused_and_nothing_is_stored(
    http: httpx.Client, checkpoints: str, name: str, says_its_size: bool
) -> None:
    body = FILE if says_its_size else iter([FILE[:100], FILE[100:]])
    answer = http.post(checkpoints, content=body, headers={name: field(b"another file")})
    assert problem(answer) == (422, "digest-mismatch")
    assert SHA256 in answer.json()["detail"]
    assert nothing_is_stored(http, checkpoints)


MISTAKEN = {
    "hexadecimal": [("Repr-Digest", f"sha-256={SHA256}")],
    "without colons": [("Repr-Digest", field().replace(":", ""))],
    "too short": [("Content-Digest", "sha-256=:AAAA:")],
    "empty": [("Repr-Digest", "sha-256")],
    "two": [("Repr-Digest", field()), ("Content-Digest", field(b"another file"))],
}


@pytest.mark.parametrize("headers", MISTAKEN.values(), ids=MISTAKEN)
def test_a_malformed_digest_is_refused(http: httpx.Client, checkpoints: str, headers: list[tuple[str, str]]) -> None:
    assert problem(http.post(checkpoints, content=FILE, headers=headers)) == (422, "bad-digest")
    assert nothing_is_stored(http, checkpoints)


def test_a_digest_of_a_form_is_refused_because_it_is_not_of_the_file(http: httpx.Client, checkpoints: str) -> None:
    answer = http.post(checkpoints, files={"file": FILE}, headers={"Repr-Digest": field()})
    assert problem(answer) == (422, "bad-digest")
    assert nothing_is_stored(http, checkpoints)


def test_another_sha256_under_a_used_key_is_refused(http: httpx.Client, checkpoints: str) -> None:
    key = {"Idempotency-Key": "one"}
    first = http.post(checkpoints, content=FILE, headers=key | {"Repr-Digest": field()})
    again = http.post(checkpoints, content=FILE, headers=key | {"Repr-Digest": field()})
    assert again.json() == first.json()
    other = http.post(checkpoints, content=FILE, headers=key | {"Repr-Digest": field(b"another file")})
    assert problem(other) == (422, "idempotency-key-reused")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("named", ["", "/any.pt"])
def test_a_sha256_is_computed_when_it_is_wanted_and_kept(
    http: httpx.Client, checkpoints: str, upload: Upload, method: str, named: str
) -> None:
    shown = upload(FILE)
    assert shown["sha256"] is None
    assert "Repr-Digest" not in http.head(f"{checkpoints}/1/original").headers
    answer = http.request(method, f"{checkpoints}/latest/original{named}", headers=WANTED)
    assert (answer.status_code, answer.headers["Repr-Digest"]) == (200, field())
    now = http.get(f"{checkpoints}/1").json()
    assert now["sha256"] == SHA256
    assert now["urls"]["original"].endswith(f"-v1-{SHA256[:8]}.pt")
    assert http.get(now["urls"]["original"]).content == FILE
    assert http.head(f"{checkpoints}/1/original").headers["Repr-Digest"] == field()
    changed = {name for name in shown if shown[name] != now[name]}
    assert changed == {"sha256", "urls"}


def test_a_range_comes_with_the_sha256_of_the_whole(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload(FILE)
    answer = http.get(f"{checkpoints}/1/original", headers=WANTED | {"Range": "bytes=0-9"})
    assert (answer.status_code, answer.content, answer.headers["Repr-Digest"]) == (206, FILE[:10], field())


@pytest.mark.parametrize("wanted", ["sha-256=0", "sha-512=1", "sha-256", "sha-256=11", "sha-256=:1:", "", "()"])
def test_a_wish_for_no_sha256_computes_none(http: httpx.Client, checkpoints: str, upload: Upload, wanted: str) -> None:
    upload(FILE)
    answer = http.get(f"{checkpoints}/1/original", headers={"Want-Repr-Digest": wanted})
    assert (answer.status_code, answer.content) == (200, FILE)
    assert "Repr-Digest" not in answer.headers
    assert http.get(f"{checkpoints}/1").json()["sha256"] is None


def test_a_file_that_came_in_parts_has_a_sha256_when_it_is_wanted(http: httpx.Client, model_name: str) -> None:
    shown = InParts(FILE).upload(http, model_name)
    assert (shown["digest"], shown["sha256"]) == (None, None)
    assert http.head(shown["urls"]["original"], headers=WANTED).headers["Repr-Digest"] == field()
    assert http.get(shown["urls"]["self"]).json()["sha256"] == SHA256
