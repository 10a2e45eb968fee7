"""Scans for numbers that are not finite, after an upload that asked for one."""

import math

import httpx
import torch

from tests.api.conftest import Upload, problem, saved
from tests.support.server import Server
from tests.support.waiting import assert_soon


def sick(count: int) -> bytes:
    """A checkpoint with ``count`` tensors that are not finite, small and large ones."""
    tensors = {f"layer{i}": torch.full((3 if i % 2 else 3000,), float(i)) for i in range(6)}
    for i in range(count):
        tensors[f"layer{i}"][1] = math.nan if i % 3 else -math.inf
    return saved(tensors)


def scanned(http: httpx.Client, url: str) -> int:
    """The number that a scan found, once it has ended."""
    etag = http.get(url).headers["ETag"]
    while (found := http.get(url).json()["nonfinite_tensors"]) is None:
        http.get(url, params={"wait": 30}, headers={"If-None-Match": etag})
    return found


def test_a_scan_counts_the_tensors_that_are_not_finite_and_tells(
    http: httpx.Client, checkpoints: str, model_name: str, upload: Upload
) -> None:
    assert upload(sick(2), scan="true")["nonfinite_tensors"] is None
    upload(sick(0), scan="true")
    upload(sick(3), scan="false")
    assert [scanned(http, f"{checkpoints}/{version}") for version in (1, 2)] == [2, 0]
    assert http.get(f"{checkpoints}/3").json()["nonfinite_tensors"] is None
    for query, versions in (({"nonfinite_tensors.gt": 0}, [1]), ({"nonfinite_tensors": 0}, [2])):
        assert [item["version"] for item in http.get(checkpoints, params=query).json()["items"]] == versions
    listed = http.get(checkpoints, params={"order": "-nonfinite_tensors"}).json()["items"]
    assert [item["version"] for item in listed] == [1, 2, 3]
    events = http.get(f"/v1/models/{model_name}/events", params={"kind": "checkpoint-nonfinite"}).json()["items"]
    assert [(event["version"], event["detail"]) for event in events] == [(1, {"nonfinite_tensors": 2})]
    assert problem(http.post(checkpoints, params={"scan": "maybe"}, content=sick(1))) == (422, "invalid-value")


def test_a_scan_that_a_crash_prevented_is_made_after_it(fresh_server) -> None:
    server: Server = fresh_server()
    url = "/v1/models/a/b/checkpoints"
    with server.client() as http:
        for count in range(4):
            assert http.post(url, params={"scan": "true"}, content=sick(count)).status_code == 201
    server.kill()
    server.restart()
    with server.client() as http:
        assert [scanned(http, f"{url}/{version}") for version in range(1, 5)] == [0, 1, 2, 3]


def test_a_scan_of_a_damaged_checkpoint_waits_and_leaves_the_others_alone(fresh_server) -> None:
    server: Server = fresh_server()
    url = "/v1/models/a/b/checkpoints"
    with server.client() as http:
        bad = saved({"w": torch.full((300_000,), 1.25)})
        assert http.post(url, content=bad).status_code == 201
        for pack in (server.data_dir / "packs").rglob("*.pack"):
            with pack.open("r+b") as file:
                file.seek(600_000)
                file.write(b"damaged")
        # The same bytes again are taken for stored already: nobody has read them since.
        assert http.post(url, params={"scan": "true", "epoch": 2}, content=bad).status_code == 201
        assert http.post(url, params={"scan": "true"}, content=sick(1)).status_code == 201
        assert scanned(http, f"{url}/3") == 1
        assert_soon(lambda: "will be retried" in server.log)
        assert http.get(f"{url}/2").json()["nonfinite_tensors"] is None
