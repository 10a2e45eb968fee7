"""Counters of models and of their runs, so that no page counts the checkpoints of a model."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_NEVER_USED = sa.text("next_version = 1")


def upgrade() -> None:
    for name in ("nbytes", "new_bytes"):
        op.add_column("models", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE models SET (nbytes, new_bytes) = (SELECT coalesce(sum(c.nbytes), 0), coalesce(sum(c.new_bytes), 0) "
        "FROM checkpoints AS c WHERE c.model_id = models.id AND c.version IS NOT NULL)"
    )
    op.create_index(
        "ix_models_never_used", "models", ["namespace"], sqlite_where=_NEVER_USED, postgresql_where=_NEVER_USED
    )
    op.create_table(
        "runs",
        sa.Column("model_id", _Id, nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("run", _Text),
        sa.Column("latest", sa.BigInteger(), nullable=False),
        sa.Column("checkpoints", sa.BigInteger(), nullable=False),
        sa.Column("live", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_runs_model_id"),
        sa.PrimaryKeyConstraint("model_id", "first", name="pk_runs"),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO runs (model_id, first, run, latest, checkpoints, live) "
        "SELECT model_id, min(version), run, max(version), count(*), sum(live) FROM ("
        "SELECT model_id, version, run, 1 AS live FROM checkpoints WHERE version IS NOT NULL "
        "UNION ALL SELECT model_id, version, run, 0 FROM removed_checkpoints) AS ever GROUP BY model_id, run"
    )
    op.create_index("ix_runs_model_id_run", "runs", ["model_id", "run"])
    op.create_index("ix_runs_model_id_latest", "runs", ["model_id", "latest"])


def downgrade() -> None:
    op.drop_table("runs")
    op.drop_index("ix_models_never_used", "models")
    op.drop_column("models", "new_bytes")
    op.drop_column("models", "nbytes")
