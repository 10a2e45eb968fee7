"""Namespaces over HTTP: what each holds, its quotas, and who may set them."""

import json

import httpx
import pytest

from tests.api.conftest import general, problem
from tests.conftest import StartServer
from tests.support.negotiating import InParts
from tests.support.raw_http import post, raw
from tests.support.server import Server
from tests.support.tokens import bearer, catalog_url, make_token
from tests.support.waiting import assert_soon, is_spooling

FILE = general()


@pytest.fixture
def model(model_name: str) -> str:
    """A model in a namespace of its own."""
    return f"{model_name.rpartition('/')[2][-100:].lstrip('-')}/m"


@pytest.fixture
def url(model: str) -> str:
    return f"/v1/namespaces/{model.partition('/')[0]}"


def test_a_namespace_says_what_it_holds(http: httpx.Client, model: str, url: str) -> None:
    checkpoints = f"/v1/models/{model}/checkpoints"
    assert problem(http.get(url)) == (404, "namespace-not-found")
    assert http.put(url, json={"quota_bytes": 5}).json()["quota_bytes"] == 5
    assert http.put(url, json={"quota_bytes": None}).json()["stored_bytes"] == 0
    assert problem(http.get(url)) == (404, "namespace-not-found")
    first, second = (http.post(checkpoints, content=FILE).json() for _ in range(2))
    found = http.get(url).json()
    stored = found.pop("stored_bytes")
    assert 64 * 64 * 4 < stored <= first["new_bytes"] + second["new_bytes"]
    assert found == {
        "namespace": url.rpartition("/")[2],
        "quota_bytes": None,
        "quota_checkpoints": None,
        "models": 1,
        "checkpoints": 2,
        "logical_bytes": 2 * len(FILE),
        "retention": None,
    }
    http.delete(f"{checkpoints}/1")
    now = http.get(url).json()
    assert (now["checkpoints"], now["logical_bytes"], now["stored_bytes"]) == (1, len(FILE), stored)
    etag = http.get(url).headers["ETag"]
    assert http.put(url, json={"quota_bytes": 10}, headers={"If-Match": etag}).json() == {**now, "quota_bytes": 10}
    assert problem(http.put(url, json={"quota_bytes": 9}, headers={"If-Match": etag})) == (412, "precondition-failed")
    assert http.put(url, json={"quota_checkpoints": 3}).json()["quota_bytes"] == 10  # what is left out stays
    assert http.put(url, json={"quota_bytes": None}).json()["quota_bytes"] is None
    page, listed = http.get("/v1/namespaces", params={"limit": 1}).json(), []
    while page["next"] is not None:
        listed += page["items"]
        page = http.get("/v1/namespaces", params={"limit": 1, "cursor": page["next"]}).json()
    names = [each["namespace"] for each in [*listed, *page["items"]]]
    assert url.rpartition("/")[2] in names
    assert names == sorted(set(names))


@pytest.mark.parametrize("quota", [-1, 2**63, 1.5, "10", True, [], "500 GB"])
def test_what_is_no_quota_is_refused(http: httpx.Client, url: str, quota: object) -> None:
    for field in ("quota_bytes", "quota_checkpoints"):
        assert problem(http.put(url, json={field: quota})) == (422, "invalid-value")
    assert problem(http.put("/v1/namespaces/a..b", json={"quota_bytes": 1})) == (422, "bad-model-name")
    assert problem(http.put(url, json={"quota": 1})) == (422, "invalid-value")
    assert problem(http.get(url)) == (404, "namespace-not-found")


def test_an_upload_over_a_quota_is_refused_before_its_body_and_leaves_nothing(
    server: Server, http: httpx.Client, model: str, url: str
) -> None:
    checkpoints, parts = f"/v1/models/{model}/checkpoints", InParts(FILE)
    http.put(url, json={"quota_bytes": len(FILE) - 1})
    status, body = raw(server, post(checkpoints, f"Content-Length: {len(FILE)}", "Expect: 100-continue"))
    assert (status, json.loads(body)["code"]) == (507, "quota-exceeded")
    assert f"stores 0 bytes, the upload may add {len(FILE):,}" in json.loads(body)["detail"]
    http.put(url, json={"quota_bytes": 1_000})
    chunked = (FILE[at : at + 10_000] for at in range(0, len(FILE), 10_000))  # of unknown length: found at the commit
    assert problem(http.post(checkpoints, content=chunked)) == (507, "quota-exceeded")
    assert problem(http.post(checkpoints, files={"file": FILE})) == (507, "quota-exceeded")
    assert problem(http.post(f"/v1/uploads/{model}", json=parts.announcement())) == (507, "quota-exceeded")
    assert_soon(lambda: not is_spooling(server))
    assert problem(http.get(checkpoints)) == (404, "model-not-found")
    found = http.get(url).json()
    assert (found["models"], found["checkpoints"], found["stored_bytes"]) == (0, 0, 0)

    http.put(url, json={"quota_bytes": 2 * len(FILE)})
    assert http.post(checkpoints, content=FILE).status_code == 201
    assert problem(http.post(checkpoints, content=general(seed=1))) == (507, "quota-exceeded")
    upload = InParts(general(epoch=9)).announce(http, model)  # needs no room for what is stored already
    InParts(general(epoch=9)).send(http, upload)
    http.put(url, json={"quota_checkpoints": 1})
    refused = http.post(f"{upload['url']}/commit")
    assert problem(refused) == (507, "quota-exceeded")
    assert "has 1 checkpoints, and its quota is 1" in refused.json()["detail"]
    assert problem(http.post(checkpoints, content=FILE)) == (507, "quota-exceeded")
    http.put(url, json={"quota_checkpoints": None})
    assert http.post(f"{upload['url']}/commit").json()["version"] == 2  # it was kept, and goes on
    assert http.get(url).json()["checkpoints"] == 2


def test_an_admin_of_a_namespace_sees_its_numbers_and_sets_no_quota(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    database = catalog_url(server)
    everywhere, ours = (bearer(make_token(database, str(ns), "admin", ns)) for ns in (None, "ours"))
    with server.client() as http:
        for namespace in ("ours", "theirs"):
            http.post(f"/v1/models/{namespace}/m/checkpoints", content=FILE, headers=everywhere)
        listed = http.get("/v1/namespaces", headers=ours).json()["items"]
        assert [each["namespace"] for each in listed] == ["ours"]
        assert http.get("/v1/namespaces/ours", headers=ours).json() == listed[0]
        assert problem(http.get("/v1/namespaces/theirs", headers=ours)) == (403, "forbidden")
        assert problem(http.put("/v1/namespaces/ours", json={"quota_bytes": None}, headers=ours)) == (403, "forbidden")
        quotas = {"quota_bytes": 4 * listed[0]["stored_bytes"], "quota_checkpoints": 2}
        assert http.put("/v1/namespaces/ours", json=quotas, headers=everywhere).json() == {**listed[0], **quotas}
        (event,) = http.get("/v1/events", params={"kind": "quota-changed"}, headers=everywhere).json()["items"]
        assert (event["by"], event["detail"]) == ("None", {"namespace": "ours", **quotas})
        metrics = http.get("/metrics", headers=everywhere).text
        assert 'stateroom_quota_used_ratio{namespace="ours",quota="bytes"} 0.25' in metrics
        assert 'stateroom_quota_used_ratio{namespace="ours",quota="checkpoints"} 0.5' in metrics
        assert 'quota_used_ratio{namespace="theirs"' not in metrics
        assert f'stateroom_namespace_bytes{{namespace="theirs"}} {listed[0]["stored_bytes"]}.0' in metrics
        assert 'stateroom_namespace_checkpoints{namespace="ours"} 1.0' in metrics
