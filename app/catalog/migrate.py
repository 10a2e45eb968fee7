"""Schema migrations, run with Alembic from within the program."""

import re
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, column, inspect, select, table

from ..errors import StateroomError
from .dialect import check_foreign_keys
from .tables import metadata

REVISION = "0027"
"""The newest revision: the four digits that its file's name begins with."""

_OWN = re.compile(r"\d{4}")
_VERSIONS = "alembic_version"


def migrations_folder() -> Path:
    """The folder ``migrations``: inside the installed package, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def config_for(connection: Connection) -> Config:
    """An Alembic configuration whose commands run on ``connection``, in its transaction."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes.update(connection=connection, metadata=metadata)
    return config


def upgrade(engine: Engine) -> None:
    """Migrate to the newest revision in one transaction. Raises StateroomError, code ``catalog-newer``, for a
    database written by a newer Stateroom, and ``catalog-foreign`` for one with another program's tables.
    """
    with engine.begin() as connection:
        _check_is_own(connection)
        try:
            command.upgrade(config_for(connection), "head")
        except CommandError as error:
            raise newer() from error
        check_foreign_keys(connection)


def newer() -> StateroomError:
    """The error for a catalog that this version does not know."""
    return StateroomError(
        "the catalog was written by a newer version of Stateroom; run that version, or restore a backup",
        code="catalog-newer",
    )


def foreign() -> StateroomError:
    """The error for a database whose tables another program made."""
    return StateroomError(
        "the database holds the tables of another program: give Stateroom a database of its own, or correct the "
        "database URL",
        code="catalog-foreign",
    )


def check_is_known(revision: str) -> None:
    """Raise StateroomError for a revision of a newer Stateroom, code ``catalog-newer``, and for one of another program,
    code ``catalog-foreign``.
    """
    if not _OWN.fullmatch(revision):
        raise foreign()
    if revision > REVISION:
        raise newer()


def _check_is_own(connection: Connection) -> None:
    """Raise StateroomError if the database has tables of another program that are in the way of ours."""
    there = set(inspect(connection).get_table_names())
    revision = None
    if _VERSIONS in there:
        revision = connection.execute(select(column("version_num")).select_from(table(_VERSIONS))).scalar()
    if revision is not None:
        check_is_known(str(revision))
    elif not there.isdisjoint(metadata.tables):
        raise foreign()
