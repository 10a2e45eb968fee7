"""The Alembic environment. The program passes a connection, the command line a URL (``-x url=sqlite:///PATH``)."""

from alembic import context
from sqlalchemy import Connection, MetaData


def migrate(connection: Connection, metadata: MetaData) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transactional_ddl=True,  # works on SQLite once the driver begins no transactions itself
        render_as_batch=True,  # SQLite changes a table by rebuilding it
    )
    with context.begin_transaction():
        context.run_migrations()


connection = context.config.attributes.get("connection")
if connection is not None:
    migrate(connection, context.config.attributes["metadata"])
else:
    from app.catalog.dialect import migrating_engine, parse_url
    from app.catalog.tables import metadata

    with migrating_engine(parse_url(context.get_x_argument(as_dictionary=True)["url"])).begin() as connection:
        migrate(connection, metadata)
