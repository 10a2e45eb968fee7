"""Downloads over HTTP: ranges, conditions, caches."""

import httpx
import pytest

from tests.api.conftest import Upload, exactly, load, problem
from tests.support.server import Server

ROUTES = ["state_dict", "file", "original"]


@pytest.mark.parametrize("route", ROUTES)
def test_a_download_has_all_that_http_asks_of_it(
    http: httpx.Client, checkpoints: str, model_name: str, upload: Upload, route: str
) -> None:
    upload()
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
    assert headers["Content-Disposition"].startswith(f'attachment; filename="{name}-v1')
    assert headers["Content-Disposition"].endswith('.pt"')
    assert "Repr-Digest" not in headers
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


def test_a_name_is_a_part_of_the_address_and_no_parameter(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    for route in ROUTES:
        assert problem(http.get(f"{checkpoints}/1/{route}?filename=x.pt")) == (422, "unknown-parameter")


@pytest.mark.parametrize(
    ("asked", "name"), [("..", None), (".", None), ("..%2F..%2Fetc%2Fx.pt", ".._.._etc_x.pt"), ("a%5Cb", "a_b")]
)
def test_a_name_in_the_address_leads_to_no_other_folder(
    server: Server, checkpoints: str, model_name: str, upload: Upload, asked: str, name: str | None
) -> None:
    upload()
    for route in ROUTES:
        answer = exactly(server, "GET", f"{checkpoints}/1/{route}/{asked}")
        disposition = answer.headers["Content-Disposition"]
        if name is None:
            assert disposition.startswith(f'attachment; filename="{model_name.split("/")[1]}-v1')
        else:
            assert disposition == f'attachment; filename="{name}"'


@pytest.mark.parametrize("route", [*ROUTES, "tensors", "state_dict/index"])
@pytest.mark.parametrize("ref", ["1", "latest"])
def test_head_is_get_without_a_body(http: httpx.Client, checkpoints: str, upload: Upload, route: str, ref: str) -> None:
    upload()
    get, head = http.get(f"{checkpoints}/{ref}/{route}"), http.head(f"{checkpoints}/{ref}/{route}")
    assert (head.status_code, head.content) == (200, b"")
    ignored = {"date", "x-request-id"}
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
