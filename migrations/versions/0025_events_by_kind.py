"""Indexes that find the events of a rare kind among a million others.

The events of new checkpoints are not in them: most events are of these, and their commits should not pay for it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0023"

_INDEXES = (("namespace", "name", "kind", "id"), ("namespace", "kind", "id"), ("kind", "id"))


def upgrade() -> None:
    condition = sa.text("kind != 'checkpoint-created'")
    for columns in _INDEXES:
        op.create_index(_name(columns), "events", columns, sqlite_where=condition, postgresql_where=condition)


def downgrade() -> None:
    for columns in _INDEXES:
        op.drop_index(_name(columns), "events")


def _name(columns: tuple[str, ...]) -> str:
    return f"ix_events_{'_'.join(columns)}"
