"""Downloads over HTTP: ranges, conditions, caches, and what happens when something breaks half-way."""

import base64
import hashlib
import http.client
import io
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import torch

from tests.api.conftest import Upload, problem, saved, state_dict
from tests.conftest import StartServer
from tests.server import Server

ROUTES = ["state_dict", "file", "original"]


def load(content: bytes) -> object:
    return torch.load(io.BytesIO(content), weights_only=True)


@pytest.mark.parametrize("route", ROUTES)
def test_a_download_has_all_that_http_asks_of_it(
    http: httpx.Client, checkpoints: str, model_name: str, upload: Upload, route: str
) -> None:
    checkpoint = upload()
    answer = http.get(f"{checkpoints}/1/{route}")
    headers = answer.headers
    assert answer.status_code == 200
    assert int(headers["Content-Length"]) == len(answer.content)
    assert "Transfer-Encoding" not in headers
    assert headers["ETag"].startswith('"')
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Stateroom-Checkpoint"] == f"{model_name}@1"
    assert headers["Cache-Control"] == "max-age=31536000, immutable"
    assert "Content-Location" not in headers
    name = model_name.split("/")[1]
    assert headers["Content-Disposition"].startswith(f'attachment; filename="{name}-v1-')
    assert headers["Content-Disposition"].endswith('.pt"')
    if route == "original":
        sha256 = base64.b64encode(bytes.fromhex(checkpoint["sha256"])).decode()
        assert headers["Repr-Digest"] == f"sha-256=:{sha256}:"
    assert load(answer.content)


@pytest.mark.parametrize("route", ROUTES)
def test_a_ref_that_moves_says_where_the_answer_stays(
    http: httpx.Client, checkpoints: str, upload: Upload, route: str
) -> None:
    upload(run="a")
    answer = http.get(
        f"{checkpoints}/latest/{route}/x.pt", params={"run": "a", "device": "cuda:1"} if route != "original" else {}
    )
    assert answer.headers["Cache-Control"] == "no-cache"
    query = "?device=cuda%3A1" if route != "original" else ""
    assert answer.headers["Content-Location"] == f"{checkpoints}/1/{route}/x.pt{query}"
    assert http.get(answer.headers["Content-Location"]).content == answer.content


def test_the_name_in_the_address_is_the_files(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    answer = http.get(f"{checkpoints}/1/original/my%20mod%C3%A8l.pt")
    assert answer.headers["Content-Disposition"] == (
        "attachment; filename=\"my mod_l.pt\"; filename*=UTF-8''my%20mod%C3%A8l.pt"
    )
    injected = http.get(f"{checkpoints}/1/original/a%22%0D%0ASet-Cookie:%20b.pt")
    assert injected.status_code == 200
    assert "Set-Cookie" not in injected.headers


@pytest.mark.parametrize("route", [*ROUTES, "tensors", "state_dict/index"])
@pytest.mark.parametrize("ref", ["1", "latest"])
def test_head_is_get_without_a_body(http: httpx.Client, checkpoints: str, upload: Upload, route: str, ref: str) -> None:
    upload()
    get, head = http.get(f"{checkpoints}/{ref}/{route}"), http.head(f"{checkpoints}/{ref}/{route}")
    assert (head.status_code, head.content) == (200, b"")
    ignored = {"date"}
    assert {k: v for k, v in head.headers.items() if k not in ignored} == {
        k: v for k, v in get.headers.items() if k not in ignored
    }


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/openapi.json", "/nowhere"])
def test_head_works_wherever_get_does(http: httpx.Client, path: str) -> None:
    head = http.head(path)
    assert (head.status_code, head.content) == (http.get(path).status_code, b"")


@pytest.mark.parametrize("route", ROUTES)
def test_any_range_is_a_slice_of_the_whole(http: httpx.Client, checkpoints: str, upload: Upload, route: str) -> None:
    upload()
    url = f"{checkpoints}/1/{route}"
    whole = http.get(url).content
    size = len(whole)
    for start, end in (
        (0, 1),
        (0, size),
        (1, 100),
        (size // 2, size // 2 + 5000),
        (size - 1, size),
        (size - 9, size + 9),
    ):
        answer = http.get(url, headers={"Range": f"bytes={start}-{end - 1}"})
        assert answer.status_code == 206
        assert answer.content == whole[start:end]
        assert answer.headers["Content-Range"] == f"bytes {start}-{min(end, size) - 1}/{size}"
        assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert http.get(url, headers={"Range": "bytes=-100"}).content == whole[-100:]
    assert http.get(url, headers={"Range": "bytes=500-"}).content == whole[500:]


def test_a_range_that_cannot_be_is_416_and_one_that_makes_no_sense_is_ignored(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    size = upload()["bytes"]
    url = f"{checkpoints}/1/original"
    outside = http.get(url, headers={"Range": f"bytes={size}-"})
    assert problem(outside) == (416, "range-not-satisfiable")
    assert outside.headers["Content-Range"] == f"bytes */{size}"
    for header in ("bytes=2-1", "bytes=0-1,5-6", "lines=1-2", "bytes=x"):
        answer = http.get(url, headers={"Range": header})
        assert (answer.status_code, len(answer.content)) == (200, size)
    assert http.head(url, headers={"Range": "bytes=0-9"}).headers["Content-Length"] == str(size)


def test_conditions_are_honoured(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    size = upload()["bytes"]
    url = f"{checkpoints}/1/original"
    etag = http.head(url).headers["ETag"]
    for known in (etag, f"W/{etag}", f'"a", {etag}', "*"):
        answer = http.get(url, headers={"If-None-Match": known, "Range": "bytes=0-9"})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["ETag"] == etag
        assert answer.headers["Cache-Control"] == "max-age=31536000, immutable"
    part = {"Range": "bytes=0-9"}
    assert http.get(url, headers={**part, "If-Range": etag}).status_code == 206
    for other in ('"other"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        answer = http.get(url, headers={**part, "If-Range": other})
        assert (answer.status_code, len(answer.content)) == (200, size)
    assert http.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_every_selection_has_an_etag_of_its_own(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    urls = [
        f"{checkpoints}/1/{rest}"
        for rest in (
            "original", "file", "file?device=cuda:0", "state_dict", "state_dict?device=cpu", "state_dict?device=cuda:0",
            "state_dict?include=conv.*", "state_dict?strip_prefix=conv.", "state_dict?component=optimizer_state_dict",
        )
    ]  # fmt: skip
    etags = [http.head(url).headers["ETag"] for url in urls]
    assert len(set(etags)) == len(etags)
    assert [http.head(url).headers["ETag"] for url in urls] == etags


def test_the_query_reaches_the_file(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload(saved({f"module.{key}": tensor for key, tensor in state_dict().items()}))
    params = [
        ("strip_prefix", "module."), ("include", "conv.*"), ("include", "tied.*"), ("exclude", "*.bias"),
        ("rename", "conv.=>features."), ("add_prefix", "net."), ("device", "cpu"),
    ]  # fmt: skip
    loaded = load(http.get(f"{checkpoints}/1/state_dict", params=params).content)
    assert isinstance(loaded, dict)
    assert list(loaded) == ["net.features.weight", "net.tied.weight"]
    assert torch.equal(loaded["net.features.weight"], state_dict()["conv.weight"])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("state_dict?inclde=conv.*", (422, "unknown-parameter")),
        ("state_dict/x.pt?Include=conv.*", (422, "unknown-parameter")),
        ("state_dict?include=nothing", (422, "no-keys-matched")),
        ("state_dict?component=nothing", (422, "unknown-component")),
        ("state_dict?device=gpu", (422, "unknown-device")),
        ("state_dict?rename=ab", (422, "bad-rename")),
        ("state_dict?include=re:(", (422, "bad-pattern")),
        ("state_dict?device=cpu&device=cuda", (422, "repeated-parameter")),
        ("state_dict?dtype=float16", (501, "cast-unavailable")),
        ("state_dict?format=safetensors", (422, "format-unavailable")),
        ("state_dict?format=onnx", (422, "unknown-format")),
        ("state_dict?plan=0123", (410, "plan-expired")),
        ("state_dict?plan=0123&device=cpu", (422, "plan-and-selection")),
        ("state_dict/index?include=nothing", (422, "no-keys-matched")),
        ("file?device=gpu", (422, "unknown-device")),
        ("file?component=a", (422, "unknown-parameter")),
        ("file?weights_only=maybe", (422, "invalid-value")),
        ("original?device=cpu", (422, "unknown-parameter")),
    ],
)
def test_a_selection_that_cannot_be_is_a_problem(
    http: httpx.Client, checkpoints: str, upload: Upload, path: str, expected: tuple[int, str]
) -> None:
    upload()
    assert problem(http.get(f"{checkpoints}/1/{path}")) == expected


def test_a_typo_is_told_what_was_near(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    answer = http.get(f"{checkpoints}/1/state_dict?inclde=conv.*").json()
    assert answer["near"][0] == "include"
    assert "did you mean 'include'?" in answer["detail"]


def test_an_object_of_unknown_classes_has_to_be_asked_for(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    import pathlib

    assert upload(saved({"model": state_dict(), "where": pathlib.PurePosixPath("x")}))["unsafe_globals"]
    assert problem(http.get(f"{checkpoints}/1/file")) == (409, "unsafe-globals")
    assert http.get(f"{checkpoints}/1/file?weights_only=false").status_code == 200
    assert load(http.get(f"{checkpoints}/1/state_dict").content)


def test_the_index_says_where_each_storage_lies(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    from blake3 import blake3

    upload()
    answer = http.get(f"{checkpoints}/latest/state_dict/index", params={"include": "conv.*"})
    layout = answer.json()
    assert layout["url"] == f"{checkpoints}/1/state_dict?include=conv.%2A"
    file = http.get(layout["url"])
    assert (layout["size"], f'"{layout["etag"]}"') == (len(file.content), file.headers["ETag"])
    assert len(layout["storages"]) == 2
    for storage in layout["storages"]:
        data = file.content[storage["start"] : storage["end"]]
        assert storage["digest"] == f"blake3:{blake3(data).hexdigest()}"
        assert storage["blocks"] == [blake3(data).hexdigest()]


def test_a_warm_start_is_known_before_a_byte_moves(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    body = {
        "target": {
            "conv.weight": {"shape": [64, 64], "dtype": "float32"},
            "conv.bias": {"shape": [32], "dtype": "torch.float32"},
            "head.weight": {"shape": [64, 64], "dtype": "float16"},
            "fc.weight": {"shape": [2], "dtype": "float32"},
        },
        "rename": [["tied.", "head."]],
    }
    report = http.post(f"{checkpoints}/latest/warmstart", json=body)
    assert report.status_code == 200, report.text
    answer = report.json()
    download = answer.pop("download")
    assert answer == {
        "matched_keys": ["conv.weight", "head.weight"],
        "missing_keys": ["fc.weight"],
        "unexpected_keys": [],
        "mismatched_keys": [{"key": "conv.bias", "have": [64], "want": [32]}],
        "cast_keys": ["head.weight"],
        "bytes": 64 * 64 * 4,
    }
    loaded = load(http.get(download).content)
    assert isinstance(loaded, dict)
    assert list(loaded) == ["conv.weight", "head.weight"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (422, "invalid-value")),
        ({"target": {"a": {"shape": [-1], "dtype": "float32"}}}, (422, "invalid-value")),
        ({"target": {}, "includ": ["a"]}, (422, "invalid-value")),
        ({"target": {}, "rename": [["a"]]}, (422, "invalid-value")),
        ({"target": {}, "device": "gpu"}, (422, "unknown-device")),
        ({"target": {}, "include": ["nothing"]}, (422, "no-keys-matched")),
        ({"target": {}, "component": "optimizer_state_dict"}, (422, "not-a-state-dict")),
    ],
)
def test_a_wrong_warm_start_is_a_problem(
    http: httpx.Client, checkpoints: str, upload: Upload, body: dict, expected: tuple[int, str]
) -> None:
    upload()
    assert problem(http.post(f"{checkpoints}/1/warmstart", json=body)) == expected


def test_a_warm_start_without_a_match_has_nothing_to_download(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    upload()
    answer = http.post(f"{checkpoints}/1/warmstart", json={"target": {}}).json()
    assert (answer["matched_keys"], answer["download"]) == ([], None)


def large(server: Server, megabytes: int) -> str:
    """The URL of a checkpoint whose download takes several windows."""
    with server.client() as http:
        tensors = {f"{i}": torch.randn(1 << 20) for i in range(megabytes // 4)}
        answer = http.post("/v1/models/a/large/checkpoints", content=saved(tensors))
        assert answer.status_code == 201
        return answer.json()["urls"]["self"]


def damage(server: Server, at: float) -> None:
    """Flip a byte of the only pack, ``at`` of the way through it."""
    (pack,) = Path(server.data_dir / "packs").rglob("*.pack")
    with pack.open("r+b") as file:
        place = int(pack.stat().st_size * at)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_damage_is_a_problem_or_a_cut_connection_but_never_a_whole_answer(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    url = large(server, 64) + "/original"
    with server.client() as client:
        whole = client.get(url).content
        damage(server, 0.9)
        with closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection:
            connection.request("GET", url)
            answer = connection.getresponse()
            assert (answer.status, int(answer.headers["Content-Length"])) == (200, len(whole))
            with pytest.raises(http.client.IncompleteRead) as cut:
                answer.read()
        assert whole.startswith(cut.value.partial)
        assert len(cut.value.partial) < len(whole) * 0.9
        late = client.get(url, headers={"Range": f"bytes={int(len(whole) * 0.9) - 10}-"})
        assert problem(late) == (500, "damaged-blob")
        assert client.get(url, headers={"Range": "bytes=0-1000000"}).content == whole[:1000001]


def test_a_lost_pack_is_no_404(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    url = large(server, 4)
    server.restart()  # with nothing cached
    for pack in Path(server.data_dir / "packs").rglob("*.pack"):
        pack.unlink()
    with server.client() as client:
        assert problem(client.get(url + "/original")) == (500, "pack-missing")
        assert client.get(url).status_code == 200


def test_a_client_that_goes_away_costs_nobody_anything(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    url = large(server, 64) + "/original"
    with server.client() as client:
        for _ in range(5):
            with client.stream("GET", url) as answer:
                next(answer.iter_raw())
        assert (
            hashlib.sha256(client.get(url).content).hexdigest() == client.get(url[: -len("/original")]).json()["sha256"]
        )
    assert server.stop() in {0, 130}
    assert "Traceback" not in server.log
