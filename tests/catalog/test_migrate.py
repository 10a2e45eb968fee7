import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect

from app.catalog import Catalog, migrate
from app.catalog.commit import commit
from app.catalog.dialect import parse_url
from app.catalog.namespaces import list_namespaces
from app.catalog.tables import metadata
from app.errors import StateroomError
from tests.catalog.make import add, begin_pack, count, digest, downgrade, new_checkpoint, resolve
from tests.support.scripts import start_script
from tests.support.waiting import LONG_ENOUGH


def schema(database: Path) -> dict[str, list[str]]:
    """Every table and index by name, as the words of its SQL; the order of constraints does not matter."""
    connection = sqlite3.connect(database)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: sorted(re.findall(r"[\w<>']+", sql)) for name, sql in rows if name != "alembic_version"}


def test_the_migrations_make_exactly_the_tables_that_the_code_describes(migrated: Path, tmp_path: Path):
    engine = create_engine(f"sqlite:///{tmp_path}/described.db")
    metadata.create_all(engine)
    engine.dispose()
    assert schema(migrated) == schema(tmp_path / "described.db")


def test_alembic_sees_nothing_left_to_migrate(database_url: str):
    engine = create_engine(parse_url(database_url))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_migrating_again_keeps_what_is_there(catalog: Catalog):
    add(catalog, loss=0.5, metrics={"acc": 1.0}, tags={"a": "b"})
    before = resolve(catalog, "1")
    catalog.migrate()
    assert resolve(catalog, "1") == before


def test_migrations_run_down_and_up_again_with_data_in_place(catalog: Catalog, database_url: str):
    blobs = [digest("a"), digest("b")]
    commit(catalog, new_checkpoint(blobs=blobs, metrics={"acc": 1.0}, tags={"a": "b"}), begin_pack(catalog, blobs))
    catalog.close()
    before = described(database_url)
    downgrade(database_url, "0001")
    catalog.migrate()
    assert described(database_url) == before
    assert resolve(catalog, "1").metrics == {"acc": 1.0}
    with catalog.read() as s:
        (vision,) = list_namespaces(s).items
        assert (vision.checkpoints, vision.logical_bytes, vision.stored_bytes) == (1, 5000, 200)
    catalog.close()
    downgrade(database_url, "base")
    assert set(described(database_url)) == {"alembic_version"}
    catalog.migrate()
    assert described(database_url) == before
    assert count(catalog, "checkpoints") == 0


def described(url: str) -> dict[str, object]:
    """Every table with its columns and indexes."""
    engine = create_engine(parse_url(url))
    inspector = inspect(engine)
    tables = {
        table: (
            sorted(
                (column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)
            ),
            sorted((str(index["name"]), index["column_names"]) for index in inspector.get_indexes(table)),
        )
        for table in inspector.get_table_names()
    }
    engine.dispose()
    return tables


def test_a_catalog_of_a_newer_stateroom_is_left_alone(catalog: Catalog):
    with catalog.write() as w:
        w._connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StateroomError, match="newer version of Stateroom") as refused:
        catalog.migrate()
    assert refused.value.code == "catalog-newer"


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_servers_that_start_at_once_both_find_a_migrated_catalog(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
):
    program = "import sys; from app.catalog import Catalog; c = Catalog(sys.argv[1]); c.migrate(); c.ping(); c.close()"
    is_file = database == "sqlite"
    url = f"sqlite:///{tmp_path}/new.db" if is_file else request.getfixturevalue("postgres").empty_database()
    running = [start_script(program, url, output=tmp_path / f"{number}.log") for number in range(4)]
    assert [process.wait(LONG_ENOUGH) for process in running] == [0, 0, 0, 0]


def test_an_installed_package_finds_the_migrations_inside_it(tmp_path: Path):
    checkout = Path(migrate.__file__).parents[2]
    package = tmp_path / "stateroom_server"
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("catalog", "values"):
        shutil.copytree(checkout / "app" / folder, package / folder, ignore=ignore)
    for file in ("__init__.py", "errors.py"):
        shutil.copy(checkout / "app" / file, package)
    shutil.copytree(checkout / "migrations", package / "migrations", ignore=ignore)
    program = (
        "import sys; from stateroom_server.catalog import Catalog, migrate\n"
        "c = Catalog(sys.argv[1]); c.migrate(); c.ping(); c.close(); print(migrate.migrations_folder())"
    )
    url = f"sqlite:///{tmp_path}/new.db"
    printed = subprocess.check_output([sys.executable, "-c", program, url], cwd=tmp_path, text=True)
    assert Path(printed.strip()) == package / "migrations"
