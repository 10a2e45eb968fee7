"""The routes by which the clients of the Hugging Face Hub write, one by one; tests/integrations runs the clients."""

import hashlib
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest
import torch
from safetensors.torch import save as save_safetensors

from tests.api.conftest import general
from tests.conftest import DATABASES
from tests.support.hub import added, batch, commit, committed, files_of, sent_ahead, upload_url
from tests.support.server import Server
from tests.support.tokens import SERVER_TOKEN, bearer, catalog_url, make_token, running_with_a_token
from tests.support.waiting import assert_soon

CODE, COMMIT, MESSAGE = "X-Error-Code", "X-Repo-Commit", "X-Error-Message"
WEIGHTS = save_safetensors({"w": torch.arange(1_000.0)}, {"format": "pt"})
LARGE = save_safetensors({"w": torch.arange(100_000.0)}, {"format": "pt"})
OTHER = save_safetensors({"w": torch.ones(100_000)}, {"format": "pt"})


@pytest.fixture
def repo(http: httpx.Client, model_name: str) -> str:
    namespace, name = model_name.split("/")
    assert http.post("/api/repos/create", json={"name": name, "organization": namespace}).status_code == 200
    return model_name


def test_a_repository_exists_before_its_first_checkpoint(http: httpx.Client, repo: str) -> None:
    namespace, name = repo.split("/")
    again = http.post("/api/repos/create", json={"name": name, "organization": namespace, "visibility": "private"})
    assert (again.status_code, again.json()["url"].endswith(repo)) == (409, True)
    empty = http.get(f"/api/models/{repo}").json()
    assert (len(empty["sha"]), empty["siblings"]) == (40, [])
    missing = http.head(f"/{repo}/resolve/main/README.md")
    assert (missing.status_code, missing.headers[CODE]) == (404, "EntryNotFound")
    assert http.get(f"/api/models/{repo}/revision/v1").headers[CODE] == "RevisionNotFound"
    nobody = commit(http, f"{namespace}/nothing", *added({"a.txt": b"a"}))
    assert (nobody.status_code, nobody.headers[CODE]) == (404, "RepoNotFound")


def test_files_without_tensors_wait_for_the_first_checkpoint_file(http: httpx.Client, repo: str) -> None:
    first = committed(http, repo, *added({"README.md": b"hello", "config.json": b"{}"}))
    assert files_of(http, repo) == files_of(http, repo, first) == {"README.md": b"hello", "config.json": b"{}"}
    assert committed(http, repo, *added({"config.json": b"{}"})) == first
    assert http.get(f"/v1/models/{repo}").status_code == 404
    second = committed(http, repo, *added({"model.safetensors": WEIGHTS, "config.json": b"[]"}), parentCommit=first)
    assert files_of(http, repo, second) == {"README.md": b"hello", "config.json": b"[]", "model.safetensors": WEIGHTS}
    assert http.get(f"/v1/models/{repo}/checkpoints/latest").json()["format"] == "folder"
    assert http.get(f"/api/models/{repo}/revision/{first}").headers[CODE] == "RevisionNotFound"


def test_a_large_file_without_tensors_waits_for_the_first_checkpoint_file(http: httpx.Client, repo: str) -> None:
    vocabulary = b"word " * 100_000
    assert httpx.put(upload_url(http, repo, vocabulary), content=vocabulary).status_code == 200
    committed(http, repo, sent_ahead("vocab.txt", vocabulary))
    [shown] = http.get(f"/api/models/{repo}", params={"blobs": "1"}).json()["siblings"]
    assert (shown["rfilename"], shown["size"]) == ("vocab.txt", len(vocabulary))
    unread = http.get(f"/{repo}/resolve/main/vocab.txt")
    assert (unread.status_code, unread.headers[CODE]) == (404, "EntryNotFound")
    committed(http, repo, *added({"model.safetensors": WEIGHTS}))
    assert files_of(http, repo) == {"vocab.txt": vocabulary, "model.safetensors": WEIGHTS}


def test_a_commit_changes_the_files_of_the_newest_and_leaves_older_ones(http: httpx.Client, repo: str) -> None:
    files = {"model.safetensors": WEIGHTS, "config.json": b"1", "old/a.txt": b"a", "old/b.txt": b"b", "empty": b""}
    first = committed(http, repo, *added(files), summary="first")
    deleted = [{"key": "deletedFolder", "value": {"path": "old/"}}, {"key": "deletedFile", "value": {"path": "empty"}}]
    second = committed(
        http, repo, *deleted, *added({"config.json": b"2"}), summary="second", description="why", parentCommit=first
    )
    assert files_of(http, repo) == {"model.safetensors": WEIGHTS, "config.json": b"2"}
    assert files_of(http, repo, first) == files
    listed = http.get(f"/api/models/{repo}/commits/main").json()
    assert [(each["id"], each["title"], each["message"]) for each in listed] == [
        (second, "second", "why"),
        (first, "first", ""),
    ]
    assert http.get(f"/v1/models/{repo}/checkpoints/2").json()["parent"] == f"{repo}@1"


def test_what_was_pushed_otherwise_is_changed_by_a_commit(
    http: httpx.Client, model_name: str, checkpoints: str
) -> None:
    assert http.post(checkpoints, content=general()).status_code == 201
    before = files_of(http, model_name)
    committed(http, model_name, *added({"README.md": b"hello"}))
    assert files_of(http, model_name) == {**before, "README.md": b"hello"}


def test_a_commit_that_comes_twice_is_made_once(http: httpx.Client, repo: str) -> None:
    first = committed(http, repo, *added({"model.safetensors": WEIGHTS}))
    changes = added({"config.json": b"{}"})
    second = committed(http, repo, *changes, parentCommit=first)
    assert committed(http, repo, *changes, parentCommit=first) == second
    assert committed(http, repo, *changes) == second
    assert committed(http, repo) == second
    assert len(http.get(f"/v1/models/{repo}/checkpoints").json()["items"]) == 2


def test_of_commits_on_one_parent_one_is_made(http: httpx.Client, repo: str) -> None:
    parent = committed(http, repo, *added({"model.safetensors": WEIGHTS}))
    stale = [lambda n=n: commit(http, repo, *added({f"{n}.txt": b"x"}), parentCommit=parent) for n in range(4)]
    with ThreadPoolExecutor(4) as threads:
        answers = [each.result() for each in [threads.submit(one) for one in stale]]
    assert sorted(each.status_code for each in answers) == [200, 412, 412, 412]
    assert all(each.headers[MESSAGE] for each in answers if each.status_code == 412)
    assert len(files_of(http, repo)) == 2


def test_commits_at_once_without_a_parent_lose_nothing(http: httpx.Client, repo: str) -> None:
    committed(http, repo, *added({"model.safetensors": WEIGHTS}))
    with ThreadPoolExecutor(3) as threads:
        some = [threads.submit(committed, http, repo, *added({f"{n}.txt": b"x"})) for n in range(3)]
        assert len({each.result() for each in some}) == 3
    assert files_of(http, repo).keys() == {"model.safetensors", "0.txt", "1.txt", "2.txt"}


def test_a_large_file_is_sent_ahead_once(http: httpx.Client, repo: str) -> None:
    asked = {"files": [{"path": path, "size": size, "sample": ""} for path, size in (("a", 9), ("b", 10**7))]}
    modes = http.post(f"/api/models/{repo}/preupload/main", json=asked).json()["files"]
    assert [each["uploadMode"] for each in modes] == ["regular", "lfs"]
    actions = batch(http, repo, LARGE)["actions"]
    assert httpx.put(actions["upload"]["href"], content=LARGE).status_code == 200
    oid = hashlib.sha256(LARGE).hexdigest()
    assert http.post(actions["verify"]["href"], json={"oid": oid, "size": len(LARGE)}).status_code == 200
    assert "actions" not in batch(http, repo, LARGE)
    made = committed(http, repo, sent_ahead("model.safetensors", LARGE), *added({"config.json": b"{}"}))
    assert files_of(http, repo) == {"model.safetensors": LARGE, "config.json": b"{}"}
    [known] = http.post(
        f"/api/models/{repo}/preupload/main", json={"files": [{"path": "model.safetensors", "size": len(LARGE)}]}
    ).json()["files"]
    assert known["oid"] == oid
    assert committed(http, repo, sent_ahead("model.safetensors", LARGE)) == made
    committed(http, repo, sent_ahead("again/model.safetensors", LARGE))
    shown = http.get(f"/api/models/{repo}", params={"blobs": "true"}).json()["siblings"]
    assert {each["rfilename"]: (each["size"], each["lfs"] and each["lfs"]["sha256"]) for each in shown} == {
        "config.json": (2, None),
        "model.safetensors": (len(LARGE), oid),
        "again/model.safetensors": (len(LARGE), oid),
    }


def test_bytes_that_are_not_what_was_announced_are_not_kept(server: Server, http: httpx.Client, repo: str) -> None:
    url = upload_url(http, repo, OTHER)
    changed = bytes([OTHER[0] ^ 1]) + OTHER[1:]
    for body, status in ((changed, 422), (OTHER[:-1], 422), (OTHER + b"x", 422)):
        answer = httpx.put(url, content=body)
        assert (answer.status_code, bool(answer.headers[MESSAGE])) == (status, True)
    parts = urlsplit(url)
    with socket.create_connection(("127.0.0.1", server.port)) as killed:
        head = (
            f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(OTHER)}\r\n\r\n"
        )
        killed.sendall(head.encode() + OTHER[:100_000])
    for body in (OTHER[:1_000], b""):  # in chunks, so that only the end tells that it is short
        assert httpx.put(url, content=iter([body])).status_code in {400, 422}
    assert "actions" in batch(http, repo, OTHER)
    refused = commit(http, repo, sent_ahead("model.safetensors", OTHER))
    assert refused.status_code == 410
    assert "upload the file again" in refused.headers[MESSAGE]


def _file(**value: object) -> dict:
    return {"key": "file", "value": {"path": "a.txt", "content": "YQ==", "encoding": "base64"} | value}


HOSTILE = {
    "no header": [_file()],
    "two headers": [{"key": "header", "value": {}}, {"key": "header", "value": {}}],
    "no object": [{"key": "header", "value": {}}, []],
    "an unknown change": [{"key": "header", "value": {}}, {"key": "copyFile", "value": {"path": "a"}}],
    "one path twice": [{"key": "header", "value": {}}, _file(), _file()],
    "a path out of the folder": [{"key": "header", "value": {}}, _file(path="../a.txt")],
    "an absolute path": [{"key": "header", "value": {}}, _file(path="/a.txt")],
    "no path": [{"key": "header", "value": {}}, _file(path=None)],
    "base64 that is none": [{"key": "header", "value": {}}, _file(content="YQ=")],
    "a line without end": [{"key": "header", "value": {}}, _file(content="YWFh" * 2**18)],
    "a folder for a file": [{"key": "header", "value": {}}, _file(path="a/")],
    "another encoding": [{"key": "header", "value": {}}, _file(encoding="utf-8")],
    "a file and a folder": [{"key": "header", "value": {}}, _file(path="config.json/a.txt")],
    "a wrong hash": [{"key": "header", "value": {}}, {"key": "lfsFile", "value": {"path": "a", "algo": "sha256"}}],
    "half a character": [{"key": "header", "value": {"summary": "\ud800"}}, _file()],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_commit_that_makes_no_sense_is_refused_and_nothing_changes(http: httpx.Client, repo: str, what: str) -> None:
    head = committed(http, repo, *added({"model.safetensors": WEIGHTS, "config.json": b"{}"}))
    body = "\n".join(map(json.dumps, HOSTILE[what]))
    answer = http.post(f"/api/models/{repo}/commit/main", content=body)
    assert (answer.status_code, bool(answer.headers[MESSAGE])) == (422, True), answer.text
    for body in ("{", "[" * 100_000, '{"key": "header", "value": {}}\n{"key": "file"'):
        assert http.post(f"/api/models/{repo}/commit/main", content=body).status_code == 422
    assert http.get(f"/api/models/{repo}").json()["sha"] == head


def test_a_commit_without_tensors_left_or_with_a_broken_file_is_refused(http: httpx.Client, repo: str) -> None:
    broken = commit(http, repo, *added({"model.safetensors": WEIGHTS[:100]}))
    assert broken.status_code == 422
    assert "model.safetensors" in broken.headers[MESSAGE]
    head = committed(http, repo, *added({"model.safetensors": WEIGHTS, "config.json": b"{}"}))
    assert commit(http, repo, {"key": "deletedFile", "value": {"path": "model.safetensors"}}).status_code == 422
    assert http.get(f"/api/models/{repo}").json()["sha"] == head


def test_there_is_one_branch_and_no_pull_request(http: httpx.Client, repo: str) -> None:
    line = json.dumps({"key": "header", "value": {"summary": "x"}})
    for url in (f"/api/models/{repo}/commit/dev", f"/api/models/{repo}/commit/main?create_pr=1"):
        assert http.post(url, content=line).status_code == 422, url


def test_tags_are_aliases_where_they_can_be_and_mean_one_commit(http: httpx.Client, repo: str) -> None:
    first = committed(http, repo, *added({"model.safetensors": WEIGHTS}))
    second = committed(http, repo, *added({"config.json": b"{}"}))
    for tag, revision in (("v1", second), ("prod", first), ("1.0", "main")):
        assert http.post(f"/api/models/{repo}/tag/{revision}", json={"tag": tag, "message": ""}).status_code == 200
        again = http.post(f"/api/models/{repo}/tag/{revision}", json={"tag": tag})
        assert (again.status_code, again.json()["code"]) == (409, "tag-exists")
    tags = {each["name"]: each["targetCommit"] for each in http.get(f"/api/models/{repo}/refs").json()["tags"]}
    assert tags == {"v1": second, "prod": first, "1.0": second}
    for tag, made in tags.items():
        assert http.get(f"/api/models/{repo}/revision/{tag}").json()["sha"] == made, tag
    assert http.get(f"/v1/models/{repo}/aliases/prod").status_code == 200
    for tag in ("main", "best", "epoch:3", "a b"):
        assert http.post(f"/api/models/{repo}/tag/main", json={"tag": tag}).status_code == 422, tag


def test_a_tag_is_removed_and_its_commit_stays(http: httpx.Client, repo: str) -> None:
    made = committed(http, repo, *added({"model.safetensors": WEIGHTS}))
    for tag in ("v1", "prod"):
        assert http.post(f"/api/models/{repo}/tag/main", json={"tag": tag}).status_code == 200
        assert http.delete(f"/api/models/{repo}/tag/{tag}").status_code == 200
        again = http.delete(f"/api/models/{repo}/tag/{tag}")
        assert (again.status_code, again.headers[CODE]) == (404, "RevisionNotFound"), tag
    assert http.get(f"/api/models/{repo}/refs").json()["tags"] == []
    assert files_of(http, repo, made) == {"model.safetensors": WEIGHTS}
    assert [each["version"] for each in http.get(f"/v1/models/{repo}/aliases/prod/history").json()["items"]] == [
        None,
        1,
    ]


def test_another_branch_is_refused_with_a_reason(http: httpx.Client, repo: str) -> None:
    made = http.post(f"/api/models/{repo}/branch/dev", json={})
    assert (made.status_code, "one branch" in made.headers[MESSAGE]) == (422, True)
    assert http.post(f"/api/models/{repo}/branch/main", json={"startingPoint": "main"}).status_code == 409
    gone = http.delete(f"/api/models/{repo}/branch/dev")
    assert (gone.status_code, gone.headers[CODE]) == (404, "RevisionNotFound")
    assert http.delete(f"/api/models/{repo}/branch/main").status_code == 422
    nobody = http.post(f"/api/models/{repo}-not/branch/dev", json={})
    assert (nobody.status_code, nobody.headers[CODE]) == (404, "RepoNotFound")


def test_some_paths_are_described(http: httpx.Client, repo: str) -> None:
    files = {"model.safetensors": WEIGHTS, "a/b/c.txt": b"c", "a/d.txt": b"dd"}
    committed(http, repo, *added(files))
    asked = {"paths": ["a/d.txt", "a/b", "nothing", "a", "model.safetensors", "a/d.txt"], "expand": False}
    shown = http.post(f"/api/models/{repo}/paths-info/main", data=asked)
    assert shown.status_code == 200
    assert [(each["type"], each["path"], each["size"]) for each in shown.json()] == [
        ("file", "a/d.txt", 2),
        ("directory", "a/b", 0),
        ("directory", "a", 0),
        ("file", "model.safetensors", len(WEIGHTS)),
    ]
    listed = http.get(f"/api/models/{repo}/tree/main", params={"recursive": "true"}).json()
    assert all(each in listed for each in shown.json())
    assert http.post(f"/api/models/{repo}/paths-info/main").json() == []
    for wrong in (b"\xff", b"paths=%ff", b"paths=a&" * 2_000):
        assert http.post(f"/api/models/{repo}/paths-info/main", content=wrong).status_code == 422
    missing = http.post(f"/api/models/{repo}/paths-info/v9", data=asked)
    assert (missing.status_code, missing.headers[CODE]) == (404, "RevisionNotFound")


def test_a_model_card_is_never_refused(http: httpx.Client) -> None:
    asked = {"content": "---\nlicense: mit\n---\n", "repoType": "model"}
    assert http.post("/api/validate-yaml", json=asked).json() == {"errors": [], "warnings": []}


@pytest.fixture(scope="module", params=DATABASES)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_with_a_token(request, tmp_path_factory) as server:
        yield server


def test_writing_takes_a_token_of_the_namespace_and_a_link_is_for_one_file(guarded: Server) -> None:
    url = catalog_url(guarded)
    tokens = {
        "writer": make_token(url, "writer", "write", "red"),
        "reader": make_token(url, "reader", "read", "red"),
        "other": make_token(url, "other", "write", "blue"),
    }
    with guarded.client() as http:
        line = json.dumps({"key": "header", "value": {"summary": "x"}})
        for who, status in (("reader", 403), ("other", 403), ("writer", 200)):
            http.headers.update(bearer(tokens[who]))
            made = http.post("/api/repos/create", json={"name": "net", "organization": "red"})
            assert made.status_code == status, who
            assert http.post("/api/models/red/net/commit/main", content=line).status_code == status, who
        link = upload_url(http, "red/net", LARGE)
        other = link.replace("/red/net.git/", "/red/other.git/")
        assert httpx.put(other, content=LARGE).status_code == 403
        assert httpx.put(link.replace("size=", "size=1"), content=LARGE).status_code == 403
        assert httpx.put(link.partition("&")[0], content=LARGE).status_code == 401
        assert httpx.put(link, content=LARGE).status_code == 200
        committed(http, "red/net", sent_ahead("model.safetensors", LARGE))
        late = upload_url(http, "red/net", WEIGHTS)
        http.headers.update(bearer(SERVER_TOKEN))
        [id_] = [each["id"] for each in http.get("/v1/tokens").json()["items"] if each["name"] == "writer"]
        assert http.delete(f"/v1/tokens/{id_}").status_code < 300
    assert_soon(lambda: httpx.put(late, content=WEIGHTS).status_code == 403)
