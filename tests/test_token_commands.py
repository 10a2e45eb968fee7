"""``token add | list | revoke``, as processes, beside servers that run."""

import json
import re
import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from app.catalog import Catalog, tokens
from app.cli.tokens import parse_expiry
from app.data_dir import CATALOG
from app.values.token import parse_token
from tests.conftest import StartServer
from tests.support.commands import run
from tests.support.tokens import bearer, catalog_url, make_token
from tests.support.waiting import assert_soon, until_ready

NOW = datetime(2026, 5, 9, 7, 35, 25, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """What a command's environment has to say, for a catalog that is this test's own."""
    if request.param == "sqlite":
        return {"STATEROOM_DATA_DIR": str(tmp_path / "data")}
    return {
        "STATEROOM_DATA_DIR": str(tmp_path / "data"),
        "STATEROOM_DATABASE_URL": request.getfixturevalue("postgres").database(),
    }


def test_a_token_is_made_listed_and_revoked_beside_a_running_server(
    fresh_server: StartServer, where: dict[str, str]
) -> None:
    url = where.get("STATEROOM_DATABASE_URL")
    server = fresh_server(*(("--database-url", url) if url else ()), data_dir=Path(where["STATEROOM_DATA_DIR"]))
    with server.client() as http:
        assert http.get("/v1/models").status_code == 200
        made = run("token", "add", "trainer", "--scope", "write", "--namespace", "vision", "--expires", "90d", **where)
        assert made.returncode == 0
        assert parse_token(made.stdout.strip().encode()) is not None
        assert re.fullmatch(
            r"trainer may write in the namespace vision until \d{4}-\d\d-\d\d \d\d:\d\d UTC\. .*\n", made.stderr
        )
        token = bearer(made.stdout.strip())
        assert http.get("/v1/models", headers=token).status_code == 200
        assert_soon(lambda: http.get("/v1/models").status_code == 401)
        assert http.get("/v1/models/audio/x", headers=token).status_code == 403

        listed = run("token", "list", **where)
        assert (listed.returncode, listed.stderr) == (0, "")
        head, row = listed.stdout.splitlines()
        assert head.split() == ["NAME", "ID", "SCOPE", "NAMESPACE", "MADE", "EXPIRES", "LAST", "USED", "STATE"]
        assert row.split()[:4] == ["trainer", made.stdout.split("_")[1], "write", "vision"]
        assert row.endswith("good")
        assert made.stdout.strip().split("_")[2] not in listed.stdout

        revoked = run("token", "revoke", "trainer", **where)
        assert (revoked.returncode, revoked.stdout) == (0, "")
        assert_soon(lambda: http.get("/v1/models", headers=token).status_code == 401)
        assert http.get("/v1/models").status_code == 401, "a server that had a token asks for one"
    assert run("token", "list", **where).stdout.splitlines()[1].endswith("revoked")


def test_all_of_it_is_json_where_that_is_asked_for(where: dict[str, str]) -> None:
    made = run("token", "add", "a", "--scope", "read", "--json", **where)
    assert made.stderr == ""
    answer = json.loads(made.stdout)
    assert parse_token(answer.pop("token").encode())[0] == answer["id"]
    assert datetime.fromisoformat(answer["created_at"]).tzinfo is not None
    expected = {"name": "a", "scope": "read", "namespace": None, "expires_at": None, "revoked_at": None}
    assert {name: answer[name] for name in expected} == expected
    assert json.loads(run("token", "list", "--json", **where).stdout) == [{**answer, "state": "good"}]
    revoked = json.loads(run("token", "revoke", "a", "--json", **where).stdout)
    assert (revoked["state"], revoked["name"]) == ("revoked", "a")


def test_an_empty_data_dir_gets_a_catalog_that_a_server_takes_over(fresh_server: StartServer, tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    made = run("token", "add", "a", "--scope", "admin", "--data-dir", str(data))
    assert made.returncode == 0
    server = fresh_server("--host", "0.0.0.0", data_dir=data)
    with server.client(headers=bearer(made.stdout.strip())) as http:
        assert http.get("/v1/models").json() == {"items": [], "next": None}


@pytest.mark.parametrize("command", [("list",), ("revoke", "a")])
def test_what_makes_no_token_makes_no_catalog(tmp_path: Path, command: tuple[str, ...]) -> None:
    wrong = run("token", *command, "--data-dir", str(tmp_path / "elsewhere"))
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("stateroom-server: there is no catalog at ")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("command", [("list",), ("revoke", "a"), ("add", "a", "--scope", "read")])
def test_a_shared_database_has_to_be_migrated_first(postgres, tmp_path: Path, command: tuple[str, ...]) -> None:
    url = postgres.empty_database()
    wrong = run("token", *command, "--database-url", url, STATEROOM_DATA_DIR=str(tmp_path))
    assert wrong.returncode == 1
    assert (
        wrong.stderr
        == "stateroom-server: the database has no catalog of this version: run stateroom-server migrate first\n"
    )
    assert wrong.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("add", "taken", "--scope", "read"), 1, "the name taken is taken: choose another"),
        (("add", "a", "--scope", "all"), 2, "not one of 'read', 'write', 'admin'"),
        (("add", "a"), 2, "--scope"),
        (("add", "a b", "--scope", "read"), 2, "is not a valid token name: use 1 to 64 letters"),
        (("add", "a", "--scope", "read", "--namespace", "a/b"), 2, "'a/b' is not a valid namespace"),
        (("add", "a", "--scope", "read", "--namespace", ""), 2, "'' is not a valid namespace"),
        (("add", "a", "--scope", "read", "--expires", "soon"), 2, "'soon' is not a time: use 90d"),
        (("add", "a", "--scope", "read", "--expires", "2020-01-01"), 2, "is in the past"),
        (("add", "a", "--scope", "read", "--expires", "0h"), 2, "is in the past"),
        (("revoke", "nobody"), 1, "there is no token called 'nobody'"),
        (("revoke",), 2, "Missing argument"),
    ],
)
def test_a_wrong_command_is_one_clear_complaint_and_makes_nothing(
    migrated: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    url = f"sqlite:///{shutil.copy(migrated, tmp_path / CATALOG)}"
    with closing(Catalog(url)) as catalog:
        make_token(url, "taken", "read")
        wrong = run("token", *arguments, STATEROOM_DATA_DIR=str(tmp_path))
        assert (wrong.returncode, wrong.stdout) == (code, "")
        assert said in wrong.stderr
        assert "Traceback" not in wrong.stderr
        with catalog.read() as session:
            assert [token.name for token in tokens.list_tokens(session)] == ["taken"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90d", NOW + timedelta(days=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("30m", NOW + timedelta(minutes=30)),
        ("2w", NOW + timedelta(weeks=2)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T18:00", datetime(2027, 1, 31, 18, tzinfo=UTC)),
        ("2027-01-31T18:00+02:00", datetime(2027, 1, 31, 16, tzinfo=UTC)),
    ],
)
def test_an_end_is_a_while_from_now_or_a_time(text: str, expected: datetime) -> None:
    assert parse_expiry(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "d", "1y", "1.5d", "-1d", "90 d", "²d", "999999999w", "9999-12-31", "2026-05-09"])
def test_what_is_no_end_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_expiry(text, NOW)


def test_a_server_open_to_others_asks_for_a_token_that_was_ever_made(
    fresh_server: StartServer, where: dict[str, str]
) -> None:
    """Even one that is revoked: the server then asks for one."""
    url = where.get("STATEROOM_DATABASE_URL")
    options = ("--host", "0.0.0.0", *(("--database-url", url) if url else ()))
    data = Path(where["STATEROOM_DATA_DIR"])
    refused = run("serve", "--port", "0", *options, "--data-dir", str(data))
    assert refused.returncode == 2
    assert "stateroom-server token add NAME --scope read|write|admin" in refused.stderr
    assert not data.exists()
    assert run("token", "add", "a", "--scope", "read", **where).returncode == 0
    assert run("token", "revoke", "a", **where).returncode == 0
    server = fresh_server(*options, data_dir=data)
    with server.client() as http:
        assert http.get("/v1/models").status_code == 401
        until_ready(http)
    with closing(Catalog(catalog_url(server))) as catalog:
        catalog.ping()


def test_a_server_open_to_others_does_not_start_where_nobody_can_tell_whether_it_is_guarded(
    postgres, tmp_path: Path
) -> None:
    url = postgres.empty_database()
    refused = run("serve", "--host", "0.0.0.0", "--port", "0", "--database-url", url, "--data-dir", str(tmp_path))
    assert (refused.returncode, refused.stderr) == (
        1,
        "stateroom-server: the database has no catalog of this version: run stateroom-server migrate first\n",
    )
