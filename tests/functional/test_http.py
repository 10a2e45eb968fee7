"""Downloads by RFC 9110: ranges, validators, HEAD, names. Every range is a slice of the whole body."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

import httpx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import StartServer
from tests.functional.classifier import make_net
from tests.functional.conftest import HttpModel
from tests.functional.torch_files import loaded, same, saved
from tests.support.measure import examples
from tests.support.server import Server

ROUTES = {
    "original": "original",
    "file": "file?device=cuda:0",
    "state_dict": "state_dict?component=model",
    "filtered": "state_dict?component=model&include=*.weight&rename=conv=>body.conv&device=cpu",
}


@dataclass(frozen=True, slots=True)
class Served:
    """One download and all of its bytes."""

    http: httpx.Client
    url: str
    whole: bytes
    etag: str

    def get(self, **headers: str) -> httpx.Response:
        return self.http.get(self.url, headers={name.replace("_", "-"): value for name, value in headers.items()})


def checkpoint() -> dict[str, object]:
    """Tensors smaller and larger than a blob has to be, a tied one, and a view."""
    big = torch.randn(700, 1000, generator=torch.Generator().manual_seed(5))
    return {
        "epoch": 3,
        "model": {**make_net().state_dict(), "big.weight": big, "tied.weight": big, "part": big[10:20, 3]},
    }


@pytest.fixture(scope="module")
def uploaded(server: Server) -> Iterator[HttpModel]:
    with server.client() as http:
        model = HttpModel(http, "tests/http")
        model.upload(saved(checkpoint(), device="cuda:3"))
        yield model


@pytest.fixture(scope="module", params=ROUTES)
def served(request: pytest.FixtureRequest, uploaded: HttpModel) -> Served:
    url = uploaded.url(f"1/{ROUTES[request.param]}")
    answer = uploaded.http.get(url)
    assert answer.status_code == 200
    return Served(uploaded.http, url, answer.content, answer.headers["ETag"])


@examples(40)
@given(data=st.data())
def test_any_range_is_that_slice_of_the_whole(served: Served, data: st.DataObject) -> None:
    size = len(served.whole)
    places = st.integers(0, size - 1) | st.integers(0, 200) | st.integers(size - 200, size - 1)
    start = data.draw(places)
    end = data.draw(st.integers(start, min(size - 1, start + 5000)) | st.integers(start, size + 10))
    form = data.draw(st.sampled_from(["bounded", "open", "suffix"]))
    match form:
        case "bounded":
            asked, expected = f"bytes={start}-{end}", served.whole[start : end + 1]
        case "open":
            asked, expected = f"bytes={start}-", served.whole[start:]
        case _:
            asked, expected = f"bytes=-{size - start}", served.whole[start:]
    answer = served.get(Range=asked)
    assert answer.status_code == 206
    assert answer.content == expected
    assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(expected) - 1}/{size}"
    assert answer.headers["Content-Length"] == str(len(expected))
    assert answer.headers["ETag"] == served.etag


def test_neighbouring_ranges_put_together_are_the_whole(served: Served) -> None:
    step = len(served.whole) // 7 + 1
    parts = [served.get(Range=f"bytes={at}-{at + step - 1}").content for at in range(0, len(served.whole), step)]
    assert b"".join(parts) == served.whole


def test_a_download_says_its_size_and_that_it_takes_ranges(served: Served) -> None:
    answer = served.get()
    assert answer.headers["Content-Length"] == str(len(served.whole))
    assert "Transfer-Encoding" not in answer.headers
    assert "Content-Encoding" not in answer.headers
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"].startswith('"')


def test_the_same_bytes_come_every_time(served: Served) -> None:
    answer = served.get()
    assert answer.content == served.whole
    assert answer.headers["ETag"] == served.etag


@pytest.mark.parametrize("form", ["bytes={size}-", "bytes={size}-{size}", "bytes=-0", "bytes=99999999999999999999-"])
def test_a_range_outside_is_416_with_the_size(served: Served, form: str) -> None:
    answer = served.get(Range=form.format(size=len(served.whole)))
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(served.whole)}"
    assert answer.json()["code"] == "range-not-satisfiable"


@pytest.mark.parametrize(
    "form", ["bytes=5-2", "bytes=a-b", "lines=0-5", "bytes", "bytes=", "bytes=--5", "bytes=0-1,5-6"]
)
def test_a_range_that_is_none_or_many_gets_the_whole(served: Served, form: str) -> None:
    answer = served.get(Range=form)
    assert answer.status_code == 200
    assert answer.content == served.whole


def test_if_range_gives_a_part_only_of_these_very_bytes(served: Served) -> None:
    assert served.get(Range="bytes=1-3", If_Range=served.etag).status_code == 206
    for other in ('"another"', f"W/{served.etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        answer = served.get(Range="bytes=1-3", If_Range=other)
        assert (answer.status_code, answer.content == served.whole) == (200, True)


def test_who_has_the_bytes_is_not_sent_them_again(served: Served) -> None:
    for known in (served.etag, f"W/{served.etag}", f'"another", {served.etag}', "*"):
        answer = served.get(If_None_Match=known)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["ETag"] == served.etag
    assert served.get(If_None_Match=served.etag, Range="bytes=0-9").status_code == 304
    assert served.get(If_None_Match='"another"').status_code == 200


def test_head_says_what_get_says_without_a_body(served: Served) -> None:
    head, get = served.http.head(served.url), served.get()
    assert head.status_code == 200
    assert head.content == b""
    ignored = {"date", "x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in ignored} == {
        k: v for k, v in get.headers.items() if k not in ignored
    }
    assert served.http.head(served.url, headers={"If-None-Match": served.etag}).status_code == 304


def test_a_number_names_its_bytes_forever_and_other_refs_say_where_they_stay(uploaded: HttpModel) -> None:
    for ref in ("1", "v1"):
        answer = uploaded.http.get(uploaded.url(f"{ref}/state_dict"))
        assert "immutable" in answer.headers["Cache-Control"]
        assert "Content-Location" not in answer.headers
    for ref in ("latest", "epoch:3"):
        answer = uploaded.http.get(uploaded.url(f"{ref}/state_dict?include=fc*&include=conv*&device=cpu"))
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["Stateroom-Checkpoint"] == "tests/http@1"
        there = uploaded.http.get(answer.headers["Content-Location"])
        assert there.headers["ETag"] == answer.headers["ETag"]
        assert there.content == answer.content
        assert there.request.url.path == uploaded.url("1/state_dict")


def test_a_part_of_a_moving_ref_also_says_where_it_stays(uploaded: HttpModel) -> None:
    answer = uploaded.http.get(uploaded.url("latest/file"), headers={"Range": "bytes=0-3"})
    assert (answer.status_code, answer.content) == (206, b"PK\3\4")
    assert answer.headers["Content-Location"] == uploaded.url("1/file")


def test_the_etag_names_the_selection(uploaded: HttpModel) -> None:
    def etag(query: str) -> str:
        return uploaded.http.head(uploaded.url(f"1/state_dict?{query}")).headers["ETag"]

    queries = [
        "",
        "device=cpu",
        "device=cuda:1",
        "include=fc*",
        "include=fc*&add_prefix=a.",
        "exclude=fc*",
        "rename=fc=>f",
    ]
    assert len({etag(query) for query in queries}) == len(queries)
    assert etag("include=fc*&include=conv*") == etag("include=conv*&include=fc*")


def test_a_file_has_a_name_of_its_own_and_the_one_it_is_asked_for_under(uploaded: HttpModel) -> None:
    def filename(path: str) -> str | None:
        message = Message()
        message["Content-Disposition"] = uploaded.http.head(uploaded.url(path)).headers["Content-Disposition"]
        return message.get_filename()

    names = [filename("1/state_dict"), filename("1/state_dict?device=cpu"), filename("1/file")]
    assert all(name is not None and name.startswith("http-v1") for name in names)
    assert len(set(names)) == 3
    assert filename("1/state_dict/my model.pth") == "my model.pth"
    plain, named = uploaded.get("1/state_dict"), uploaded.get("1/state_dict/resnet.pt")
    assert plain == named
    assert uploaded.get("1/file/a.tar") == uploaded.get("1/file")
    assert uploaded.get("1/original/a.tar") == uploaded.get("1/original")


def test_the_original_comes_with_its_sha256(uploaded: HttpModel) -> None:
    data = uploaded.http.get(uploaded.url("1/original"), headers={"Want-Repr-Digest": "sha-256=1"}).content
    assert uploaded.json("1")["sha256"] == hashlib.sha256(data).hexdigest()
    assert data == saved(checkpoint(), device="cuda:3")


def test_what_is_not_there_is_a_404_with_a_code(uploaded: HttpModel) -> None:
    assert uploaded.refusal("2/state_dict")["code"] == "checkpoint-not-found"
    assert uploaded.refusal("epoch:99")["code"] == "checkpoint-not-found"
    nobody = uploaded.http.get("/v1/models/tests/nobody/checkpoints/latest")
    assert (nobody.status_code, nobody.json()["code"]) == (404, "model-not-found")
    nowhere = uploaded.http.get("/v1/nowhere")
    assert (nowhere.status_code, nowhere.headers["Content-Type"]) == (404, "application/problem+json")
    wrong_method = uploaded.http.put(uploaded.url("1/file"))
    assert (wrong_method.status_code, wrong_method.headers["Content-Type"]) == (405, "application/problem+json")


@pytest.mark.parametrize("query", ["includ=fc*", "format=onnx", "device=cpu&device=cuda", "rename=fc", "include=re:("])
def test_a_query_that_means_nothing_never_sends_the_whole_file(uploaded: HttpModel, query: str) -> None:
    answer = uploaded.http.get(uploaded.url(f"1/state_dict?{query}"))
    assert 400 <= answer.status_code < 500 or answer.status_code == 501
    assert answer.json()["code"]


def test_a_power_cut_after_the_acknowledgement_loses_nothing_and_changes_no_byte(fresh_server: StartServer) -> None:
    server = fresh_server()
    with server.client() as http:
        model = HttpModel(http, "tests/durable")
        model.upload(saved(checkpoint(), device="cuda:3"))
        before = {name: http.get(model.url(f"1/{path}")) for name, path in ROUTES.items()}
    server.restart()
    with server.client() as http:
        for name, path in ROUTES.items():
            again = http.get(model.url(f"1/{path}"))
            assert again.headers["ETag"] == before[name].headers["ETag"]
            assert again.content == before[name].content
    served = loaded(before["state_dict"].content, map_location="cpu")
    assert same(dict(served), checkpoint()["model"])
