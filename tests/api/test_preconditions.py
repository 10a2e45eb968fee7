"""If-Match and If-None-Match (RFC 9110, 13): a request for a state other than the current one is not performed."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.api.conftest import Upload, general, problem
from tests.support.routes import OPERATIONS

FAILED = (412, "precondition-failed")


def test_a_download_that_goes_on_with_another_version_is_a_412(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    upload(general(seed=1))
    for seed, path in enumerate(("/file", "/original", "/state_dict?component=model_state_dict", "/file/index", "")):
        url = f"{checkpoints}/latest{path}"
        etag = http.get(url).headers["ETag"]
        assert http.get(url, headers={"If-Match": etag}).status_code == 200
        upload(general(seed=seed + 2))
        for fields in ({}, {"Range": "bytes=100-"}, {"If-None-Match": etag}, {"Range": "bytes=100-", "If-Range": etag}):
            answer = http.get(url, headers={"If-Match": etag, **fields})
            assert problem(answer) == FAILED
            assert answer.headers["ETag"] == http.get(url).headers["ETag"] != etag
        assert http.head(url, headers={"If-Match": etag}).status_code == 412


def test_if_match_comes_before_if_none_match_and_range(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    url = f"{checkpoints}/1/original"
    etag = http.head(url).headers["ETag"]
    assert http.get(url, headers={"If-Match": etag, "If-None-Match": etag}).status_code == 304
    assert http.get(url, headers={"If-Match": "*", "Range": "bytes=0-9"}).status_code == 206
    several = [("If-Match", '"x", "y"'), ("If-Match", f'"z", {etag}')]
    assert http.get(url, headers=several).status_code == 200
    for wrong in ('"x"', f"W/{etag}", etag.strip('"'), ""):
        assert problem(http.get(url, headers={"If-Match": wrong, "Range": "bytes=0-9"})) == FAILED
    assert http.get(url, headers={"If-Unmodified-Since": "Wed, 21 Oct 2015 07:28:00 GMT"}).status_code == 200


def test_a_change_of_what_has_changed_meanwhile_is_not_made(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    upload()
    url, model = f"{checkpoints}/1", checkpoints.removesuffix("/checkpoints")
    before, model_before = http.get(url).headers["ETag"], http.get(model).headers["ETag"]
    assert http.patch(url, json={"tags": {"by": "one"}}, headers={"If-Match": before}).status_code == 200
    for method, body in (("PATCH", {"tags": {"by": "two"}}), ("DELETE", None)):
        answer = http.request(method, url, json=body, headers={"If-Match": before})
        assert problem(answer) == FAILED
        assert answer.headers["ETag"] == http.get(url).headers["ETag"]
    assert http.get(url).json()["tags"] == {"by": "one"}
    assert problem(http.patch(model, json={"best": "max:a"}, headers={"If-Match": model_before})) == FAILED
    assert problem(http.patch(url, json={"tags": {}}, headers={"If-None-Match": "*"})) == FAILED
    answer = http.patch(url, json={"tags": {"by": "three"}}, headers={"If-Match": http.get(url).headers["ETag"]})
    assert answer.headers["ETag"] == http.get(url).headers["ETag"]
    assert http.delete(url, headers={"If-Match": answer.headers["ETag"]}).status_code == 204


def test_of_changes_with_the_same_etag_one_is_made(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload()
    url = f"{checkpoints}/1"
    etag = http.get(url).headers["ETag"]

    def change(number: int) -> int:
        return http.patch(url, json={"tags": {"by": str(number)}}, headers={"If-Match": etag}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(change, range(8))) == [200] + [412] * 7


def test_a_first_upload_can_be_asked_to_be_the_first(http: httpx.Client, checkpoints: str) -> None:
    for method in ("POST", "PUT"):
        assert problem(http.request(method, checkpoints, content=general(), headers={"If-Match": "*"})) == FAILED
    first = {"If-None-Match": "*"}
    assert http.post(checkpoints, content=general(), headers=first).status_code == 201
    assert problem(http.post(checkpoints, content=general(), headers=first)) == FAILED
    etag = http.get(checkpoints).headers["ETag"]
    assert http.put(checkpoints, content=general(), headers={"If-Match": etag}).status_code == 201
    assert problem(http.put(checkpoints, content=general(), headers={"If-Match": etag})) == FAILED
    assert len(http.get(checkpoints).json()["items"]) == 2


@pytest.mark.parametrize("route", ["warmstart", "links/file", "links/original", "links/state_dict"])
def test_what_only_does_something_is_never_what_if_match_names(
    http: httpx.Client, checkpoints: str, upload: Upload, route: str
) -> None:
    upload()
    answer = http.post(f"{checkpoints}/1/{route}", json={"target": {}}, headers={"If-Match": "*"})
    assert problem(answer) == FAILED


def test_every_route_says_that_it_may_answer_412(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    for method, path in OPERATIONS:
        assert "412" in document["paths"][path][method.lower()]["responses"], (method, path)
