"""Lineage over HTTP: the names that uploads give, and who may see what they lead to."""

import httpx

from tests.api.conftest import general, problem
from tests.conftest import StartServer
from tests.support.negotiating import InParts
from tests.support.tokens import bearer, catalog_url, make_token


def test_every_way_of_upload_names_what_training_began_with(http: httpx.Client, model_name: str) -> None:
    url = f"/v1/models/{model_name}/checkpoints"
    first, second = f"{model_name}@1", f"{model_name}@2"
    made = http.post(url, content=general(0), params={"parent": "", "run": "a"}).json()
    assert (made["parent"], made["warm_started_from"]) == (None, None)
    assert http.put(url, content=general(1), params={"parent": first}).json()["parent"] == first
    fields = {"parent": second, "warm_started_from": first}
    form = http.post(url, files={"file": general(2)}, data=fields).json()
    assert {name: form[name] for name in fields} == fields
    parts = InParts(general(3)).upload(http, model_name, parent=f"{model_name}@3")
    assert http.get(f"{url}/4").json() == parts
    assert parts["parent"] == f"{model_name}@3"
    assert [each["parent"] for each in http.get(url).json()["items"]] == [f"{model_name}@3", second, first, None]

    answer = http.get(f"{url}/latest/lineage")
    assert answer.headers["Stateroom-Checkpoint"] == f"{model_name}@4"
    lineage = answer.json()
    assert lineage.pop("ancestors") == [
        {
            "model": model_name,
            "version": version,
            "state": "live",
            "relation": relation,
            "weight": None,
            "depth": depth,
            "via": via,
            "run": run,
            "epoch": version - 1,
            "created_at": http.get(f"{url}/{version}").json()["created_at"],
        }
        for version, relation, depth, via, run in (
            (3, "parent", 1, f"{model_name}@4", None),
            (1, "warm_started_from", 2, f"{model_name}@3", "a"),
            (2, "parent", 2, f"{model_name}@3", None),
        )
    ]
    assert lineage == {
        "model": model_name,
        "version": 4,
        "descendants": [],
        "more_ancestors": False,
        "more_descendants": False,
    }
    descendants = http.get(f"{url}/latest/lineage", params={"run": "a"}).json()["descendants"]
    assert [(each["version"], each["depth"]) for each in descendants] == [(2, 1), (3, 1), (4, 2)]


def test_a_name_of_no_checkpoint_is_refused_before_anything_is_stored(http: httpx.Client, model_name: str) -> None:
    url = f"/v1/models/{model_name}/checkpoints"
    for wrong in ("latest", f"{model_name}@latest", f"{model_name}@0", "a@1", "a/b/c@1", f"{model_name}@{'9' * 19}"):
        assert problem(http.post(url, content=general(), params={"parent": wrong})) == (422, "invalid-value")
    for field in ("parent", "warm_started_from"):
        named = {field: f"{model_name}@1"}
        assert problem(http.post(url, content=general(), params=named)) == (422, "unknown-parent")
        assert problem(http.post(url, files={"file": general()}, data=named)) == (422, "unknown-parent")
        upload = InParts(general()).announce(http, model_name)
        InParts(general()).send(http, upload)
        answer = http.post(f"{upload['url']}/commit", params=named)
        assert problem(answer) == (422, "unknown-parent")
        assert "there is no such model" in answer.json()["detail"]
    assert problem(http.get(url)) == (404, "model-not-found")


def test_a_token_with_a_namespace_learns_only_names(fresh_server: StartServer) -> None:
    server = fresh_server(env={"STATEROOM_DURABLE": "off"})
    database = catalog_url(server)
    everywhere, ours = (
        bearer(make_token(database, name, "write", namespace)) for name, namespace in (("all", None), ("ours", "ours"))
    )
    secret, public = "/v1/models/theirs/secret/checkpoints", "/v1/models/ours/public/checkpoints"
    with server.client() as http:

        def stored(url: str, token: dict[str, str], **fields: str) -> httpx.Response:
            return http.post(url, content=general(), params=fields, headers=token)

        for _ in range(2):
            stored(secret, everywhere, run="hidden")
        for there in ("theirs/secret@2", "theirs/secret@3", "theirs/never@1"):  # alike, whether it exists or not
            assert stored(public, ours, parent=there).status_code == 201
        assert problem(stored(public, everywhere, parent="theirs/secret@3")) == (422, "unknown-parent")
        stored(secret, everywhere, parent="ours/public@1", warm_started_from="theirs/secret@1")

        (above,) = http.get(f"{public}/1/lineage", headers=ours).json()["ancestors"]
        assert (above["model"], above["version"], above["state"]) == ("theirs/secret", 2, "unknown")
        assert (above["run"], above["epoch"], above["created_at"]) == (None, None, None)
        assert http.get(f"{public}/1/lineage", headers=ours).json()["descendants"] == []
        seen = http.get(f"{public}/1/lineage", headers=everywhere).json()
        assert [(each["state"], each["run"]) for each in seen["ancestors"]] == [("live", "hidden")]
        assert [each["model"] for each in seen["descendants"]] == ["theirs/secret", "ours/public"]
        assert problem(http.get(f"{secret}/1/lineage", headers=ours)) == (403, "forbidden")
