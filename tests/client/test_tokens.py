"""Tokens from Python, and from the command line."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from stateroom import Client, Conflict, InvalidRequest, NotFound, Token, Unauthorized
from stateroom._cli.main import main
from tests.support.server import Server
from tests.support.tokens import SERVER_TOKEN, running_with_a_token
from tests.support.waiting import assert_soon


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_with_a_token(request, tmp_path_factory) as server:
        yield server


@pytest.fixture
def root(guarded: Server) -> Iterator[Client]:
    with Client(guarded.base_url, SERVER_TOKEN) as client:
        yield client


def test_a_token_is_made_used_listed_and_revoked(guarded: Server, root: Client) -> None:
    made = root.add_token("trainer", "write", namespaces=["vision", "nlp"], expires="90d")
    assert (made.name, made.scope, made.namespaces, made.state) == ("trainer", "write", ("nlp", "vision"), "good")
    assert made.expires_at - made.created_at == timedelta(days=90)
    assert made.token is not None
    assert made.token not in repr(made)
    assert [each.token for each in root.tokens()] == [None]
    with Client(guarded.base_url, made.token) as client:
        assert list(client.models()) == []
        assert_soon(lambda: next(root.tokens()).last_used_at is not None)
        with pytest.raises(Unauthorized, match="not limited to a namespace"):
            list(client.tokens())
        root.revoke_token(made.id)
        root.revoke_token("trainer")

        def is_refused() -> bool:
            try:
                list(client.models())
            except Unauthorized:
                return True
            return False

        assert_soon(is_refused)
    (revoked,) = root.tokens()
    assert isinstance(revoked, Token)
    assert (revoked.state, revoked.revoked_at is None) == ("revoked", False)


def test_what_is_no_token_is_an_error(root: Client) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    made = root.add_token("one", "read", namespaces="vision", expires=until)
    assert (made.namespaces, made.expires_at) == (("vision",), until)
    with pytest.raises(Conflict, match="the name one is taken"):
        root.add_token("one", "read")
    for wrong in ({"name": "a b"}, {"scope": "all"}, {"namespaces": []}, {"expires": "soon"}):
        with pytest.raises(InvalidRequest):
            root.add_token(**{"name": "two", "scope": "read", **wrong})
    with pytest.raises(NotFound, match="no token called 'nobody'"):
        root.revoke_token("nobody")
    with pytest.raises(InvalidRequest):
        root.revoke_token("..")


def test_the_command_line_does_the_same(
    guarded: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STATEROOM_URL", guarded.base_url)
    monkeypatch.setenv("STATEROOM_TOKEN", SERVER_TOKEN)

    def run(*arguments: str, code: int = 0) -> str:
        assert main(["tokens", *arguments]) == code
        return capsys.readouterr().out

    made = run("--add", "cli", "--scope", "read", "--namespace", "a", "--namespace", "b", "--expires", "12h").strip()
    assert made.startswith("stateroom_")
    shown = run()
    assert made not in shown
    row = next(line.split() for line in shown.splitlines() if line.startswith("cli "))
    assert (row[1], row[2], row[3], row[-1]) == (made.split("_")[1], "read", "a,b", "good")
    as_json = json.loads(run("--add", "json", "--scope", "admin", "--json"))
    assert (as_json["name"], as_json["namespaces"]) == ("json", None)
    assert as_json["token"].startswith("stateroom_")
    assert json.loads(run("--revoke", "cli", "--json")) == {"revoked": "cli"}
    states = {each["name"]: each["state"] for each in json.loads(run("--json"))}
    assert (states["cli"], states["json"]) == ("revoked", "good")
    assert run("--revoke", "json") == "revoked json\n"
    for wrong in (("--add", "x"), ("--scope", "read"), ("--expires", "1d"), ("--add", "x", "--revoke", "y")):
        assert run(*wrong, code=2) == ""
