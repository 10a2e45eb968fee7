"""``events`` of the server's command line, and how long events are kept."""

import json
from collections import Counter

import pytest

from tests.api.conftest import general, problem
from tests.conftest import StartServer
from tests.support.commands import run
from tests.support.tokens import bearer, catalog_url, make_token


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_audit_log_says_who_did_what_and_who_was_refused_for_as_long_as_it_is_kept(
    database: str, request: pytest.FixtureRequest, fresh_server: StartServer
) -> None:
    where = ("--database-url", request.getfixturevalue("postgres").database()) if database == "postgresql" else ()
    server = fresh_server(*where)
    url = catalog_url(server)
    options = ("--data-dir", str(server.data_dir), *where)
    writer, reader = make_token(url, "trainer", "write"), make_token(url, "reader", "read", "vision")
    model = "/v1/models/vision/net"

    def told(*words: str) -> list[dict]:
        done = run("events", *words, "--json", *options)
        assert (done.returncode, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]

    with server.client(headers=bearer(writer)) as http:
        http.post(f"{model}/checkpoints", content=general()).raise_for_status()
        for token in (reader, reader, f"{reader[:-64]}{0:064}", "nonsense"):
            answer = http.delete(f"{model}/checkpoints/1", headers=bearer(token))
            assert answer.status_code in {401, 403}
        assert http.get("/v1/namespaces/vision/events").json()["items"][0]["by"] == "trainer"
        assert len(http.get(f"{model}/events").json()["items"]) == 1
    server.stop()  # which records the refusals that are not recorded yet
    everything = told()
    assert [event["kind"] for event in everything[:3]] == ["token-made", "token-made", "checkpoint-created"]
    refused: Counter[tuple[str, str]] = Counter()
    for event in everything[3:]:
        refused[event["by"], event["address"]] += event["detail"]["count"]
    assert refused["reader", "127.0.0.1"] == 2
    assert refused[f"token {reader.split('_')[1]}", "127.0.0.1"] == 1
    assert refused["not a token", "127.0.0.1"] == 1
    made = everything[2]
    assert (made["model"], made["version"], made["by"], made["address"]) == ("vision/net", 1, "trainer", "127.0.0.1")
    assert told("--kind", "checkpoint-created") == [made]
    assert told("--after", str(made["id"]))[0]["id"] == made["id"] + 1
    as_text = run("events", *options).stdout
    assert f"checkpoint-created  {made['model']}@1  by trainer  from 127.0.0.1" in as_text

    assert run("sweep", *options).returncode == 0
    assert len(told()) == len(everything)
    assert run("sweep", *options, STATEROOM_EVENTS_KEEP="0").returncode == 0
    assert told() == everything[-1:]
    gone = run("events", "--after", "1", *options)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "have been deleted" in gone.stderr
    server.restart()
    with server.client(headers=bearer(writer)) as http:
        answer = http.get(f"{model}/events?after=1")
        assert problem(answer) == (410, "events-expired")
        assert answer.json()["after"] == everything[-1]["id"] - 1
