"""The size of an answer is known before it is made, whatever a file or its tags hold."""

import socket
from typing import Any

import httpx
import torch

from tests.api.conftest import Upload, general, problem, saved
from tests.support.server import Server

MEGABYTE = 1 << 20
OWN = general(seed=4321)
"""A file of this module's own: other tests look at what theirs adds to the store."""


def pages(http: httpx.Client, url: str, **params: Any) -> list[dict]:
    found = [http.get(url, params=params).raise_for_status().json()]
    while found[-1]["next"] is not None:
        found.append(http.get(url, params={**params, "cursor": found[-1]["next"]}).raise_for_status().json())
    return found


def test_very_many_components_are_counted_and_all_listed_by_tensors(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    tensor = torch.zeros(1)
    checkpoint = upload(saved({f"net{number:03d}": {"w": tensor} for number in range(300)}))
    assert [each["name"] for each in checkpoint["components"]] == [f"net{number:03d}" for number in range(256)]
    assert checkpoint["more_components"] == 44
    assert http.get(f"{checkpoints}/1").json() == checkpoint
    [page] = pages(http, f"{checkpoints}/1/tensors")
    assert (len(page["components"]), page["more_components"]) == (300, 0)
    assert http.get(f"{checkpoints}/1/state_dict", params={"component": "net299"}).status_code == 200


def test_long_names_of_components_do_not_make_a_listing_long(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    tensor = torch.zeros(1)
    names = [f"{number:03d}" + "\udcff" * 4000 for number in range(100)]
    upload(saved({name: {"w": tensor} for name in names}))
    assert len(http.get(checkpoints).content) < MEGABYTE


def test_of_many_keys_on_one_storage_some_are_named_and_all_are_counted(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    tensor = torch.zeros(1)
    upload(saved({f"{number:04d}." + "k" * 200: tensor for number in range(500)}))
    first = http.get(f"{checkpoints}/1/tensors").json()["items"][0]
    assert first["shared_count"] == 499
    assert 4096 <= sum(map(len, first["shared_with"])) <= 4096 + 205
    assert first["key"] not in first["shared_with"]


def test_a_page_of_tensors_ends_where_it_is_long_and_the_next_one_goes_on(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    keys = [f"{number:04d}." + "k" * 4000 for number in range(600)]
    upload(saved({key: torch.zeros(1) for key in keys}))
    found = pages(http, f"{checkpoints}/1/tensors", limit=10_000)
    assert len(found) > 1
    assert [item["key"] for page in found for item in page["items"]] == keys
    assert len(http.get(f"{checkpoints}/1/tensors?limit=10000").content) < 2 * MEGABYTE


def test_a_page_of_checkpoints_ends_where_it_is_long_and_the_next_one_goes_on(
    http: httpx.Client, checkpoints: str, upload: Upload
) -> None:
    tags = {f"t{number}": "v" * 10_000 for number in range(25)}
    for _ in range(10):
        version = upload(OWN)["version"]
        http.patch(f"{checkpoints}/{version}", json={"tags": tags}).raise_for_status()
    found = pages(http, checkpoints, limit=1000)
    assert len(found) > 1
    assert [item["version"] for page in found for item in page["items"]] == list(range(10, 0, -1))
    ordered = pages(http, checkpoints, limit=1000, order="tag.t1")
    assert [item["version"] for page in ordered for item in page["items"]] == list(range(10, 0, -1))


def test_tags_are_limited_in_all_and_not_for_each_request(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload(OWN)
    answers = [
        http.patch(f"{checkpoints}/1", json={"tags": {f"t{turn}.{number}": "v" * 10_000 for number in range(20)}})
        for turn in range(2)
    ]
    assert answers[0].status_code == 200
    assert problem(answers[1]) == (422, "bad-tag")
    for turn in range(2):
        answer = http.patch(f"{checkpoints}/1", json={"metrics": {f"m{turn}.{number}": 1 for number in range(600)}})
        assert (answer.status_code == 200) == (turn == 0)
    assert len(http.get(f"{checkpoints}/1").json()["metrics"]) == 600


def test_a_problem_never_repeats_a_long_text(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload(saved({"k" * 4000: torch.zeros(1)}))
    answer = http.post(f"{checkpoints}/1/warmstart", json={"target": {}, "include": ["k" * 3999, "x" * 4000]})
    assert problem(answer) == (422, "no-keys-matched")
    assert len(answer.content) < 5_000


def test_a_long_body_is_not_read_for_a_checkpoint_that_is_not_there(server: Server, checkpoints: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        head = f"POST {checkpoints}/1/warmstart HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 404")


def test_a_small_change_has_a_small_body(http: httpx.Client, checkpoints: str, upload: Upload) -> None:
    upload(OWN)
    assert problem(http.patch(f"{checkpoints}/1", content=b" " * 1_100_000)) == (413, "too-large")
