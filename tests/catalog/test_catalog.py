import re
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from app.catalog import Catalog, WriteSession
from app.catalog.postgres import Scope
from app.catalog.tables import checksums
from app.errors import StateroomError, StorageFull, StoreError
from tests.catalog.make import add, count, resolve


def pragma(session_connection, name: str) -> object:
    return session_connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


@pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 0)])
def test_writers_keep_what_they_acknowledge_unless_told_otherwise(database: Path, durable: bool, synchronous: int):
    catalog = Catalog(f"sqlite:///{database}", durable=durable)
    with catalog.write() as w:
        settings = [
            pragma(w._connection, name) for name in ("synchronous", "journal_mode", "foreign_keys", "busy_timeout")
        ]
    assert settings == [synchronous, "wal", 1, 30_000]
    catalog.close()


def test_a_read_session_cannot_write(catalog: Catalog):
    row = {"namespace": "a", "key": "b", "digest": "c", "crc32": 1}
    with pytest.raises(StoreError) as failed, catalog.read() as s:
        WriteSession(s._connection, Scope()).execute(insert(checksums).values(row))
    assert failed.value.code == "catalog-failed"
    assert re.search("readonly|read-only", str(failed.value.__cause__))


def test_a_read_session_sees_one_moment(catalog: Catalog):
    add(catalog)
    with catalog.read() as s:
        assert s._connection.exec_driver_sql("SELECT count(*) FROM checkpoints").scalar_one() == 1
        add(catalog)
        assert s._connection.exec_driver_sql("SELECT count(*) FROM checkpoints").scalar_one() == 1
    assert count(catalog, "checkpoints") == 2


def test_a_write_session_that_fails_leaves_nothing(catalog: Catalog):
    row = {"namespace": "a", "key": "b", "digest": "c", "crc32": 1}
    with pytest.raises(IntegrityError), catalog.write() as w:
        w.insert(checksums, [row, row])
    assert count(catalog, "checksums") == 0


def test_a_catalog_that_was_never_migrated_does_not_answer_a_ping(tmp_path: Path, catalog: Catalog):
    catalog.ping()
    bare = Catalog(f"sqlite:///{tmp_path}/bare.db")
    with pytest.raises(StoreError) as failed:
        bare.ping()
    assert failed.value.code == "catalog-failed"
    bare.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/db", "somewhere", ""])
def test_a_database_that_cannot_hold_a_catalog_is_refused(url: str):
    with pytest.raises(StateroomError, match="sqlite:///PATH") as refused:
        Catalog(url)
    assert refused.value.code == "bad-database-url"


def test_a_damaged_database_is_a_failure_and_names_no_path(tmp_path: Path):
    (tmp_path / "noise.db").write_bytes(b"noise " * 1000)
    for path in (tmp_path / "noise.db", tmp_path / "no" / "such" / "folder.db"):
        catalog = Catalog(f"sqlite:///{path}")
        with pytest.raises(StoreError) as failed:
            resolve(catalog, "latest")
        assert failed.value.code == "catalog-failed"
        assert str(tmp_path) not in failed.value.detail
        catalog.close()


def test_a_full_disk_is_said_to_be_full(sqlite_catalog: Catalog):
    catalog = sqlite_catalog
    with catalog.write() as w:
        w._connection.exec_driver_sql(f"PRAGMA max_page_count={pragma(w._connection, 'page_count')}")
    with pytest.raises(StorageFull), catalog.write() as w:
        w.insert(checksums, [{"namespace": "a", "key": f"{i}" * 100, "digest": "d", "crc32": i} for i in range(1000)])
    assert count(catalog, "checksums") == 0


def test_a_writer_that_waited_in_vain_is_told_to_come_back(sqlite_catalog: Catalog, database: Path):
    catalog = sqlite_catalog
    with catalog.write() as w:
        w._connection.exec_driver_sql("PRAGMA busy_timeout=1")
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError) as busy, catalog.write():
        pass
    assert busy.value.code == "catalog-busy"
    other.close()
