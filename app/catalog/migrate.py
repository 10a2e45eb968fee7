"""Schema migrations, run with Alembic from within the program."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine

from ..errors import StateroomError
from .dialect import check_foreign_keys
from .tables import metadata

REVISION = "0027"
"""The newest revision: the four digits that its file's name begins with."""


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
    database written by a newer Stateroom.
    """
    with engine.begin() as connection:
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
