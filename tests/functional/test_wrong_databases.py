"""Databases that a server must not or cannot use: it says so at its start, in one line, and changes nothing."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.conftest import StartServer
from tests.support.commands import run
from tests.support.postgres import Postgres
from tests.support.waiting import assert_soon, until_ready

SECRET = "pass-7f3a"

OTHER = (
    "CREATE TABLE alembic_version (version_num varchar(32))",
    "INSERT INTO alembic_version VALUES ('3f2b')",
    "CREATE TABLE users (id int)",
)
CLASHING = ("CREATE TABLE checkpoints (id int)",)


def change(url: str, *statements: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]
    return url


def absent(postgres: Postgres) -> str:
    return postgres.url("nowhere")


def unknown_user(postgres: Postgres) -> str:
    return postgres.url("postgres").replace("postgres@", f"nobody:{SECRET}@")


def refused(_: Postgres) -> str:
    return f"postgresql://nobody:{SECRET}@127.0.0.1:1/stateroom"


def of_another_program(postgres: Postgres) -> str:
    return change(postgres.empty_database(), *OTHER)


def newer(postgres: Postgres) -> str:
    return change(postgres.database(), "UPDATE alembic_version SET version_num = '9999'")


def read_only_user(postgres: Postgres) -> str:
    role = "DO $$ BEGIN CREATE ROLE looker LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    url = change(postgres.database(), role, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker")
    return url.replace("postgres@", f"looker:{SECRET}@")


def read_only_database(postgres: Postgres) -> str:
    url = postgres.database()
    return change(url, f"ALTER DATABASE {urlsplit(url).path[1:]} SET default_transaction_read_only = on")


@pytest.mark.parametrize(
    ("database", "words"),
    [
        (absent, "create the database that its URL names"),
        (unknown_user, "does not accept the user or the password"),
        (refused, "no server listens at the address"),
        (of_another_program, "holds the tables of another program"),
        (newer, "written by a newer version of Stateroom"),
        (read_only_user, "grant it all privileges"),
        (read_only_database, "the catalog's database is read-only"),
    ],
)
def test_a_wrong_database_of_postgresql_is_told_at_the_start(
    fresh_server: StartServer, postgres: Postgres, database: Callable[[Postgres], str], words: str
) -> None:
    with pytest.raises(RuntimeError, match=words) as failed:
        fresh_server("--database-url", database(postgres))
    assert "Traceback" not in str(failed.value)
    assert SECRET not in str(failed.value)


def test_a_database_that_becomes_read_only_is_told_by_readyz(fresh_server: StartServer, postgres: Postgres) -> None:
    url = postgres.database()
    server = fresh_server("--database-url", url)
    settings = f"ALTER DATABASE {urlsplit(url).path[1:]} SET default_transaction_read_only"
    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{urlsplit(url).path[1:]}'"
    with server.client() as http:
        until_ready(http)
        change(postgres.url("postgres"), f"{settings} = on", cut)
        assert_soon(lambda: "the catalog's database is read-only" in http.get("/readyz").text)
        assert http.get("/readyz").status_code == 503
        assert_soon(lambda: http.get("/v1/models").status_code == 200)
        change(postgres.url("postgres"), f"{settings} = off", cut)
        until_ready(http)


@pytest.mark.parametrize("statements", [OTHER, CLASHING], ids=["versions", "clashing"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_tables_of_another_program_are_left_alone(
    tmp_path: Path, request: pytest.FixtureRequest, database: str, statements: tuple[str, ...]
) -> None:
    if database == "sqlite":
        file = tmp_path / "other.sqlite3"
        with closing(sqlite3.connect(file)) as connection, connection:
            for statement in statements:
                connection.execute(statement)
        url, before = f"sqlite:///{file}", file.read_bytes()
    else:
        url = change(request.getfixturevalue("postgres").empty_database(), *statements)
    done = run("migrate", "--data-dir", str(tmp_path / "data"), "--database-url", url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "holds the tables of another program" in done.stderr
    assert "Traceback" not in done.stderr
    if database == "sqlite":
        with closing(sqlite3.connect(file)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        assert names == {statement.split()[2] for statement in statements if statement.startswith("CREATE")}
        assert len(file.read_bytes()) == len(before)
    else:
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert found == (sum(statement.startswith("CREATE") for statement in statements),)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"no database" * 1000)
    done = run("migrate", "--data-dir", str(tmp_path / "data"), "--database-url", f"sqlite:///{tmp_path}/notes.txt")
    assert (done.returncode, done.stdout) == (1, "")
    assert "its file is no database" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "notes.txt").read_bytes() == b"no database" * 1000
