"""The routes by which the clients of the Hugging Face Hub read, one by one; tests/integrations runs the clients."""

from collections.abc import Iterator, Mapping

import httpx
import pytest

from tests.api.conftest import Upload, general
from tests.conftest import DATABASES
from tests.support.folders import form, shards
from tests.support.server import Server
from tests.support.tokens import SERVER_TOKEN, bearer, catalog_url, make_token, running_with_a_token

CODE, COMMIT, MESSAGE = "X-Error-Code", "X-Repo-Commit", "X-Error-Message"


@pytest.fixture
def files(http: httpx.Client, checkpoints: str) -> Mapping[str, bytes]:
    """The files of a folder that is the model's first checkpoint."""
    files = shards()
    assert http.post(checkpoints, files=form(files)).status_code == 201
    return files


def test_a_model_is_a_repository_and_its_newest_checkpoint_is_main(
    http: httpx.Client, model_name: str, files: Mapping[str, bytes], upload: Upload
) -> None:
    first = http.get(f"/api/models/{model_name}").json()
    assert first["id"] == model_name
    assert len(first["sha"]) == 40
    assert {each["rfilename"] for each in first["siblings"]} == set(files)
    upload()
    second = http.get(f"/api/models/{model_name}/revision/main").json()
    assert second["sha"] != first["sha"]
    for revision in ("1", "v1", first["sha"]):
        assert http.get(f"/api/models/{model_name}/revision/{revision}").json() == first, revision
    assert [each["id"] for each in http.get(f"/api/models/{model_name}/commits/main").json()] == [
        second["sha"],
        first["sha"],
    ]


def test_aliases_are_tags_and_refs_are_revisions(http: httpx.Client, model_name: str, upload: Upload) -> None:
    upload(epoch=1)
    upload(epoch=2)
    assert http.put(f"/v1/models/{model_name}/aliases/prod", json={"ref": "1"}).status_code == 201
    found = http.get(f"/api/models/{model_name}/refs").json()
    commits = [each["id"] for each in http.get(f"/api/models/{model_name}/commits/main").json()]
    assert found["branches"] == [{"name": "main", "ref": "refs/heads/main", "targetCommit": commits[0]}]
    assert found["tags"] == [{"name": "prod", "ref": "refs/tags/prod", "targetCommit": commits[1]}]
    for revision, commit in (("prod", 1), ("epoch%3A1", 1), ("epoch:2", 0), ("latest", 0)):
        assert http.get(f"/api/models/{model_name}/revision/{revision}").json()["sha"] == commits[commit], revision


def test_a_tree_lists_files_and_folders(http: httpx.Client, model_name: str, files: Mapping[str, bytes]) -> None:
    url = f"/api/models/{model_name}/tree/main"
    top = http.get(url, params={"recursive": "false", "expand": "false"}).json()
    assert {each["path"]: each["type"] for each in top} == {
        **{path: "file" for path in files if "/" not in path},
        "tokenizer": "directory",
    }
    everything = http.get(url, params={"recursive": "true"}).json()
    assert {each["path"]: each["size"] for each in everything if each["type"] == "file"} == {
        path: len(data) for path, data in files.items()
    }
    assert [each["path"] for each in http.get(f"{url}/tokenizer").json()] == ["tokenizer/vocab.json"]
    missing = http.get(f"{url}/nothing")
    assert (missing.status_code, missing.headers[CODE]) == (404, "EntryNotFound")


def test_a_file_says_its_commit_its_size_and_an_etag_of_its_content(
    http: httpx.Client, model_name: str, files: Mapping[str, bytes], checkpoints: str
) -> None:
    commit = http.get(f"/api/models/{model_name}").json()["sha"]
    etags = {}
    for path, data in files.items():
        head = http.head(f"/{model_name}/resolve/main/{path}")
        assert head.status_code == 200, head.headers
        assert head.headers[COMMIT] == commit
        assert int(head.headers["Content-Length"]) == len(data)
        etags[path] = head.headers["ETag"].strip('"')
        fixed = http.get(f"/{model_name}/resolve/{commit}/{path}", headers={"Range": "bytes=5-"})
        assert (fixed.status_code, fixed.content) == (206, data[5:])
        assert "immutable" in fixed.headers["Cache-Control"]
    assert len(set(etags.values())) == len(files)
    assert all(len(etag) != 64 for etag in etags.values())  # clients would take it for a SHA-256
    assert http.post(checkpoints, files=form({**files, "config.json": b"{}"})).status_code == 201
    again = http.head(f"/{model_name}/resolve/main/tokenizer/vocab.json")
    assert again.headers["ETag"].strip('"') == etags["tokenizer/vocab.json"]
    assert again.headers[COMMIT] != commit


def test_a_checkpoint_that_is_no_folder_is_one_file(http: httpx.Client, model_name: str, upload: Upload) -> None:
    upload()
    [file] = http.get(f"/api/models/{model_name}/tree/main").json()
    assert http.get(f"/{model_name}/resolve/main/{file['path']}").content == general()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/models/{no}", "RepoNotFound"),
        ("/api/models/{no}/revision/main", "RepoNotFound"),
        ("/{no}/resolve/main/config.json", "RepoNotFound"),
        ("/api/models/-bad/..name", "RepoNotFound"),
        ("/api/models/{model}/revision/77", "RevisionNotFound"),
        ("/api/models/{model}/revision/refs%2Fpr%2F1", "RevisionNotFound"),
        ("/api/models/{model}/revision/%00", "RevisionNotFound"),
        ("/api/models/{model}/tree/epoch:9", "RevisionNotFound"),
        ("/{model}/resolve/" + "0" * 39 + "1/config.json", "RevisionNotFound"),
        ("/{model}/resolve/" + "f" * 40 + "/config.json", "RevisionNotFound"),
        ("/{model}/resolve/main/none.json", "EntryNotFound"),
        ("/{model}/resolve/main/%2E%2E/config.json", "EntryNotFound"),
    ],
)
def test_what_is_not_there_has_the_name_that_clients_know(
    http: httpx.Client, model_name: str, upload: Upload, path: str, code: str
) -> None:
    upload()
    answer = http.get(path.format(model=model_name, no="nobody/nothing"))
    assert (answer.status_code, answer.headers.get(CODE)) == (404, code), answer.text
    assert answer.headers[MESSAGE]
    assert answer.headers["Content-Type"] == "application/problem+json"
    if code == "EntryNotFound":
        assert answer.headers[COMMIT] == http.get(f"/api/models/{model_name}").json()["sha"]


def test_unknown_parameters_are_ignored(http: httpx.Client, model_name: str, upload: Upload) -> None:
    upload()
    for path in ("", "/tree/main", "/revision/main", "/refs", "/commits/main"):
        assert http.get(f"/api/models/{model_name}{path}", params={"blobs": "true", "p": 0}).status_code == 200, path


def test_models_are_listed_by_author_and_search(http: httpx.Client, model_name: str, upload: Upload) -> None:
    upload()
    namespace, name = model_name.split("/")
    for params in ({"author": namespace}, {"search": name}, {"author": namespace, "search": name.upper()}):
        assert model_name in [each["id"] for each in http.get("/api/models", params=params).json()], params
    assert [each["id"] for each in http.get("/api/models", params={"search": name}).json()] == [model_name]
    assert http.get("/api/models", params={"author": "nobody"}).json() == []


@pytest.fixture(scope="module", params=DATABASES)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_with_a_token(request, tmp_path_factory) as server:
        yield server


def test_tokens_hold(guarded: Server) -> None:
    with guarded.client(headers=bearer(SERVER_TOKEN)) as http:
        for namespace in ("red", "blue"):
            assert http.post(f"/v1/models/{namespace}/net/checkpoints", content=general()).status_code == 201
        [name] = [each["rfilename"] for each in http.get("/api/models/red/net").json()["siblings"]]
    reader = bearer(make_token(catalog_url(guarded), "reader", "read", "red"))
    paths = [f"/api/models/{{}}/net{rest}" for rest in ("", "/revision/main", "/tree/main", "/refs", "/commits/main")]
    paths.append(f"/{{}}/net/resolve/main/{name}")
    with guarded.client() as http:
        assert http.get("/api/whoami-v2", headers=reader).json()["name"] == "reader"
        assert [each["id"] for each in http.get("/api/models", headers=reader).json()] == ["red/net"]
        for path in paths:
            assert http.get(path.format("red"), headers=reader).status_code == 200, path
            assert http.get(path.format("blue"), headers=reader).status_code == 403, path
            assert http.get(path.format("red")).status_code == 401, path
            wrong = http.get(path.format("red"), headers=bearer("wrong"))
            assert (wrong.status_code, wrong.headers[MESSAGE]) == (401, "Invalid credentials in Authorization header")
