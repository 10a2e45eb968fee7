"""Folders over HTTP, as curl and a browser send them: forms of several files, and zips."""

import html
import io
import json
import re
import zipfile
from collections.abc import Callable
from contextlib import nullcontext

import httpx
import pytest
import torch
from safetensors.torch import load as load_safetensors

from tests.api.conftest import load, problem, saved, sgd_state_dict
from tests.conftest import StartServer
from tests.support.folders import Files, form, index, shards


def zipped(files: Files, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return buffer.getvalue()


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


Post = Callable[[httpx.Client, str, Files], httpx.Response]

WAYS: dict[str, Post] = {
    "a form": lambda http, url, files: http.post(url, files=form(files)),
    "a form that begins with a long file": lambda http, url, files: http.post(
        url, files=form({"first.bin": bytes(3_000_000), **files})
    ),
    "a form that begins with an empty file": lambda http, url, files: http.post(
        url, files=form({"__init__.py": b"", **files})
    ),
    "a zip": lambda http, url, files: http.post(url, content=zipped(files)),
    "a zip with entries for folders": lambda http, url, files: http.put(
        url, content=zipped({"tokenizer/": b"", **files})
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_is_one_checkpoint_whose_files_come_back(http: httpx.Client, checkpoints: str, way: str) -> None:
    files = shards()
    answer = WAYS[way](http, checkpoints, files)
    assert answer.status_code == 201, answer.text
    assert answer.json()["format"] == "folder"
    items = http.get(f"{checkpoints}/1/files").json()["items"]
    paths = [item["path"] for item in items]
    assert paths == sorted(paths)
    assert set(paths) >= set(files)
    for path, data in files.items():
        one = http.get(f"{checkpoints}/1/files/{path}")
        assert one.content == data
        assert one.headers["X-Content-Type-Options"] == "nosniff"
        assert one.headers["Content-Disposition"].startswith("attachment")
    assert files.items() <= unzipped(http.get(f"{checkpoints}/1/original").content).items()
    state = load(http.get(f"{checkpoints}/1/state_dict").content)
    assert torch.equal(state["a"], torch.arange(4_000.0))
    assert torch.equal(state["b"], torch.ones(3))
    assert set(load(http.get(f"{checkpoints}/1/file").content)) == {"a", "b"}
    merged = http.get(f"{checkpoints}/1/state_dict", params={"format": "safetensors", "include": "a"}).content
    assert list(load_safetensors(merged)) == ["a"]


def test_the_fields_of_a_form_may_come_anywhere(http: httpx.Client, checkpoints: str) -> None:
    fields = {"epoch": "4", "tag.who": "me"}
    made = http.post(checkpoints, files=form(shards()), data=fields).json()
    assert (made["epoch"], made["tags"]) == (4, {"who": "me"})
    refused = http.post(checkpoints, files=form(shards()), data={"epoch": "x"})
    assert problem(refused)[0] == 422
    assert len(http.get(checkpoints).json()["items"]) == 1


def test_a_file_has_ranges_and_an_etag_that_an_equal_file_shares(http: httpx.Client, checkpoints: str) -> None:
    files = shards()
    http.post(checkpoints, files=form(files))
    http.post(checkpoints, files=form({**files, "config.json": b"{}"}))
    path = "files/tokenizer/vocab.json"
    first = http.get(f"{checkpoints}/1/{path}")
    assert "immutable" in first.headers["Cache-Control"]
    assert first.headers["Content-Type"] == "application/json"
    part = http.get(f"{checkpoints}/1/{path}", headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, files["tokenizer/vocab.json"][5:10])
    head = http.head(f"{checkpoints}/1/{path}")
    assert head.headers["Content-Length"] == str(len(files["tokenizer/vocab.json"]))
    again = http.get(f"{checkpoints}/latest/{path}", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    etags = [http.get(f"{checkpoints}/{version}/files/config.json").headers["ETag"] for version in (1, 2)]
    assert etags[0] != etags[1]


def test_a_listing_has_pages(http: httpx.Client, checkpoints: str) -> None:
    http.post(checkpoints, files=form(shards()))
    first = http.get(f"{checkpoints}/1/files", params={"limit": 2}).json()
    assert len(first["items"]) == 2
    rest = http.get(f"{checkpoints}/1/files", params={"cursor": first["next"]}).json()
    assert len(rest["items"]) == 3
    assert rest["next"] is None
    assert problem(http.get(f"{checkpoints}/1/files", params={"cursor": "x"})) == (422, "bad-cursor")


def test_the_page_of_a_folder_lists_its_files(http: httpx.Client, model_name: str) -> None:
    http.post(f"/v1/models/{model_name}/checkpoints", files=form({**shards(), "a b/é%.txt": b"text"}))
    page = http.get(f"/models/{model_name}/checkpoints/1").text
    links = re.findall(r'href="[./]*(v1/[^"]*/files/[^"]*)"', page)
    assert [http.get(f"/{html.unescape(link)}").content for link in links] == [
        data for _, data in sorted({**shards(), "a b/é%.txt": b"text"}.items())
    ]


def test_a_path_that_is_not_there_is_404_with_what_is_near(http: httpx.Client, checkpoints: str) -> None:
    http.post(checkpoints, files=form(shards()))
    answer = http.get(f"{checkpoints}/1/files/tokenizer/vocab.jsn")
    assert problem(answer) == (404, "file-not-found")
    assert "tokenizer/vocab.json" in answer.json()["detail"]


def test_a_checkpoint_that_is_no_folder_has_the_one_file_of_its_download(http: httpx.Client, checkpoints: str) -> None:
    file = saved({"weight": torch.ones(3)})
    http.post(checkpoints, content=file)
    (item,) = http.get(f"{checkpoints}/1/files").json()["items"]
    assert http.get(f"{checkpoints}/1/files/{item['path']}").content == file
    assert (item["bytes"], item["format"]) == (len(file), "torch_zip")
    assert problem(http.get(f"{checkpoints}/1/files/other.pt")) == (404, "file-not-found")


def test_without_its_optimizer_a_folder_keeps_its_other_files(http: httpx.Client, model_name: str) -> None:
    url = f"/v1/models/{model_name}/checkpoints"
    files = {**shards(), "optimizer.pt": saved(sgd_state_dict(5_000))}
    assert http.post(url, files=form(files)).status_code == 201
    http.patch(f"/v1/models/{model_name}", json={"retention": {"thin_after": {"keep_last": 1}}}).raise_for_status()
    assert http.post(url, files=form({**files, "config.json": b"{}"})).status_code == 201
    assert problem(http.get(f"{url}/1/files/optimizer.pt")) == (410, "thinned")
    assert problem(http.get(f"{url}/1/original")) == (410, "thinned")
    for path in ("config.json", "model-00001-of-00002.safetensors", "tokenizer/vocab.json"):
        assert http.get(f"{url}/1/files/{path}").content == files[path]


LONG = "a" * 256

PATHS: dict[str, tuple[str, str]] = {
    "..": ("../model.bin", "'..'"),
    "inner ..": ("a/../model.bin", "'..'"),
    ".": ("./model.bin", "'.'"),
    "absolute": ("/model.bin", "absolute"),
    "empty segment": ("a//model.bin", "''"),
    "a folder": ("a/", "''"),
    "backslash": ("a\\model.bin", "backslash"),
    "a drive": ("a:model.bin", "':'"),
    "control": ("a\x01.bin", "'\\x01'"),
    "long name": (LONG, "255"),
    "long path": ("/".join(["abcdefg"] * 200), "1,024"),
    "reserved": ("a/NUL.txt", "Windows"),
    "a dot at the end": ("a./b", "Windows"),
    "case": ("CONFIG.json", "config.json"),
    "case of a folder": ("Tokenizer/a", "tokenizer"),
    "case of ß": ("Stra\u00dfe", "path-clash"),
    "Unicode forms": ("\u00e9", "path-clash"),
    "a file and a folder": ("config.json/a", "both"),
    "a folder and a file": ("tokenizer", "both"),
    "twice": ("config.json", "twice"),
}


@pytest.mark.parametrize("what", PATHS)
@pytest.mark.parametrize("way", ["a form", "a zip"])
def test_a_path_that_some_system_cannot_hold_is_refused(
    http: httpx.Client, checkpoints: str, way: str, what: str
) -> None:
    path, words = PATHS[what]
    names = [*shards(), "STRASSE", "e\u0301", path]
    if way == "a form":
        body = b"".join(
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="'
            + name.replace("\\", "\\\\").encode()
            + b'"\r\n\r\n'
            + shards().get(name, b"")
            + b"\r\n"
            for name in names
        )
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = http.post(checkpoints, content=body + b"--x--\r\n", headers=headers)
    else:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive, pytest.warns() if what == "twice" else nullcontext():
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), shards().get(name, b""))
        if what == "a folder":
            return  # an entry for a folder, which a zip may have
        answer = http.post(checkpoints, content=buffer.getvalue())
    assert problem(answer) == (422, "bad-folder")
    assert words in json.dumps(answer.json()) or words in answer.json()["detail"]
    assert problem(http.get(checkpoints)) == (404, "model-not-found")


def test_a_name_that_is_not_utf_8_is_refused(http: httpx.Client, checkpoints: str) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="\xff"\r\n\r\na\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = http.post(checkpoints, content=part * 2 + b"--x--\r\n", headers=headers)
    assert problem(answer) == (422, "bad-folder")
    assert "UTF-8" in answer.json()["detail"]


def test_files_without_names_are_no_folder(http: httpx.Client, checkpoints: str) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\na\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = http.post(checkpoints, content=part * 2 + b"--x--\r\n", headers=headers)
    assert problem(answer) == (422, "bad-folder")


REFUSED: dict[str, tuple[Callable[[dict[str, bytes]], Files], str, str]] = {
    "a missing shard of an index": (
        lambda files: {path: data for path, data in files.items() if "00002-of" not in path},
        "shard-index",
        "model-00002-of-00002.safetensors",
    ),
    "a missing shard by its number": (
        lambda files: {path: data for path, data in files.items() if "00002-of" not in path and "index" not in path},
        "shard-missing",
        "number 2",
    ),
    "a shard too many": (
        lambda files: {**files, "model-00003-of-00002.safetensors": files["model-00002-of-00002.safetensors"]},
        "shard-missing",
        "has the shard model-00003-of-00002.safetensors, but the 2 shards are numbered from 1",
    ),
    "shards that are counted from 0": (
        lambda files: {"m-00000-of-00001.bin": saved({"a": torch.ones(3)})},
        "shard-missing",
        "has the shard m-00000-of-00001.bin, but",
    ),
    "an index that has keys in each other's shards": (
        lambda files: {
            **files,
            "model.safetensors.index.json": index(a="model-00002-of-00002", b="model-00001-of-00002"),
        },
        "shard-index",
        "in 'model-00001-of-00002.safetensors', which does not have it",
    ),
    "an index that names a file that is no shard": (
        lambda files: {**files, "model.safetensors.index.json": b'{"weight_map": {"a": "config.json"}}'},
        "shard-kind",
        "'config.json' holds no tensors",
    ),
    "a shard whose name differs by its case": (
        lambda files: {**files, "MODEL-00001-of-00002.safetensors": files["model-00001-of-00002.safetensors"]},
        "path-clash",
        "are one on many systems",
    ),
    "one key in two shards": (
        lambda files: {**files, "model-00002-of-00002.safetensors": files["model-00001-of-00002.safetensors"]},
        "shard-overlap",
        "'a'",
    ),
    "an index of another key": (
        lambda files: {
            **files,
            "model.safetensors.index.json": index(c="model-00001-of-00002", b="model-00002-of-00002"),
        },
        "shard-index",
        "'c'",
    ),
    "an index that is no JSON": (lambda files: {**files, "model.safetensors.index.json": b"{"}, "shard-index", "JSON"),
    "a nested index": (
        lambda files: {**files, "model.safetensors.index.json": b"[" * 100_000},
        "shard-index",
        "JSON",
    ),
    "an index of numbers": (
        lambda files: {**files, "model.safetensors.index.json": b'{"weight_map": {"a": 1}}'},
        "shard-index",
        "'a'",
    ),
    "an index that leads out": (
        lambda files: {**files, "model.safetensors.index.json": b'{"weight_map": {"a": "../../etc/passwd"}}'},
        "shard-index",
        "passwd",
    ),
    "a shard and the whole": (
        lambda files: {**files, "model.safetensors": files["model-00002-of-00002.safetensors"]},
        "shard-overlap",
        "model.safetensors",
    ),
    "a shard that is no state_dict": (
        lambda files: {"m-00001-of-00001.bin": saved([torch.ones(3)])},
        "shard-kind",
        "m-00001-of-00001.bin",
    ),
    "a shard that is no checkpoint": (
        lambda files: {"m-00001-of-00001.bin": b"text", "a.pt": saved({"a": torch.ones(1)})},
        "shard-kind",
        "m-00001-of-00001.bin",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_shards_that_do_not_fit_are_refused(http: httpx.Client, checkpoints: str, what: str) -> None:
    spoil, rule, words = REFUSED[what]
    answer = http.post(checkpoints, content=zipped(spoil(shards())))
    assert problem(answer) == (422, "bad-folder"), answer.text
    assert answer.json()["rule"] == rule
    assert words in answer.json()["detail"]
    assert problem(http.get(checkpoints)) == (404, "model-not-found")


def test_a_damaged_checkpoint_in_a_folder_is_named(http: httpx.Client, checkpoints: str) -> None:
    files = shards()
    cut = {**files, "model-00001-of-00002.safetensors": files["model-00001-of-00002.safetensors"][:-1]}
    answer = http.post(checkpoints, files=form(cut))
    assert problem(answer) == (422, "not-a-checkpoint")
    assert "model-00001-of-00002.safetensors" in answer.json()["where"]
    pointer = {
        "pytorch_model.bin": b"version https://git-lfs.github.com/spec/v1\n",
        "a.pt": saved({"a": torch.ones(1)}),
    }
    assert "git lfs pull" in http.post(checkpoints, files=form(pointer)).json()["detail"]


def test_a_folder_without_tensors_is_refused(http: httpx.Client, checkpoints: str) -> None:
    answer = http.post(checkpoints, content=zipped({"a.pt": saved({"epoch": 1}), "b.txt": b"text"}))
    assert problem(answer) == (422, "no-tensors")


def test_a_compressed_folder_is_told_how_to_pack(http: httpx.Client, checkpoints: str) -> None:
    answer = http.post(checkpoints, content=zipped(shards(), zipfile.ZIP_DEFLATED))
    assert problem(answer) == (422, "not-a-checkpoint")
    assert answer.json()["rule"] == "zip-deflated"
    assert "zip -0 -r" in answer.json()["detail"]


def test_a_link_in_a_zip_is_refused(http: httpx.Client, checkpoints: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.pt", saved({"a": torch.ones(1)}))
        link = zipfile.ZipInfo("config.json")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    answer = http.post(checkpoints, content=buffer.getvalue())
    assert problem(answer) == (422, "hostile-checkpoint")
    assert answer.json()["rule"] == "zip-attributes"


@pytest.mark.parametrize("what", [b"hidden_size", b'"word": 1', b"\x80?\0\0\x80?"], ids=["small", "large", "weights"])
def test_a_damaged_file_is_refused(http: httpx.Client, checkpoints: str, what: bytes) -> None:
    damaged = zipped(shards()).replace(what, bytes([what[0] ^ 1]) + what[1:], 1)
    answer = http.post(checkpoints, content=damaged)
    assert problem(answer) == (422, "hostile-checkpoint")
    assert answer.json()["rule"] == "crc"


def test_a_form_that_breaks_off_leaves_nothing_behind(fresh_server: StartServer) -> None:
    server = fresh_server()
    files = {"first.bin": bytes(3_000_000), **shards()}
    request = httpx.Request("POST", "http://x", files=form(files))
    body = request.read()
    headers = {"Content-Type": request.headers["Content-Type"]}
    with server.client() as http:
        for end in (1_000, 2_999_000, 3_000_400, len(body) // 2 + 1_500_000, len(body) - 10):
            answer = http.post("/v1/models/a/b/checkpoints", content=body[:end], headers=headers)
            assert problem(answer) == (400, "incomplete-upload")
        bad = httpx.Request("POST", "http://x", files=[*form(files), *form({"../x": b""})])
        headers = {"Content-Type": bad.headers["Content-Type"]}
        answer = http.post("/v1/models/a/b/checkpoints", content=bad.read(), headers=headers)
        assert problem(answer) == (422, "bad-folder")
        assert problem(http.get("/v1/models/a/b/checkpoints")) == (404, "model-not-found")
    assert list((server.data_dir / "spool").iterdir()) == []
    assert list(server.data_dir.rglob("*.pack")) == []
