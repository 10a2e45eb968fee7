"""The tables.

A checkpoint row without a version is in the trash, or belongs to an unfinished commit, which only commit and clean-up
see. A model whose next
version is 1 never had a checkpoint, and is invisible too. So is a model with ``deleted_at``; its row stays so that no
version is given twice. Metrics and tags have the key (model, version, name), so that ranking by one is an index
look-up; ``run`` is repeated there for the same reason.

A removed checkpoint has a row in ``removed_checkpoints``, which stays for ever, for the history. While it is in the
trash, that row points at the row in ``checkpoints``, which keeps its references to blobs but has no version: so no
reader of checkpoints, metrics or tags can find it. ``purge_at`` is when a sweep may purge it, and later when it did.

An alias points at a version; the row of ``alias_changes`` with its ``revision`` has everything else about it. The
changes of a removed alias stay, so that no revision is given twice. A row of ``lineage`` holds names, and stays when
the checkpoints that it names are deleted. A merge has a row for each of its sources, with its ``position`` and weight.

The ids of ``events`` ascend in the order of commits, without gaps; the newest event is never deleted, so that no id is
given twice. The transaction that writes an event writes a delivery of it for each webhook that wants it. A webhook's
``next_at`` is when its oldest waiting delivery is due, null if none waits; ``failures`` counts the failed attempts
since one succeeded.

A row of ``namespaces`` has the quotas of a namespace, and counts its visible checkpoints, their ``nbytes``, and the
``length`` of its blobs. Only ``namespaces.count`` changes the counters, where those rows are inserted or deleted.

A model's ``checkpoints``, ``nbytes`` and ``new_bytes`` count its visible checkpoints, as do those of its ``runs``: of
a run, ``checkpoints`` there ever were, ``live`` ones that are visible, ``first`` and ``latest`` of their versions. The
checkpoints without a run are one of these, with a null name.

A blob's ``unused_since`` is the time when a sweep found no checkpoint that refers to it. ``damaged_at`` is the time
when its bytes were found not to match its digest. When an upload brings them again, ``healed_at`` is set and
``damaged_at`` cleared. A sealed pack with a running lease belongs to an unfinished commit. The id of an upload in parts
is the name of the pack that its parts are stored in, with a lease as long as ``kept_until``. The row of a revoked token
stays, so that a server that ever had a token never becomes open. ``namespaces`` of a token is a sorted list, null for
all; ``last_used_at`` is written at most once a minute. A row of ``sessions`` is a browser's; its ``maker`` is
the id of a token, or ``server``.

The ids of ``loose_files`` ascend in the order of the writes to a namespace, and none is given twice. A row without a
``recipe`` is a removed file's; ``replaced`` is the id of the newest row under the path by another ``writer``.

``optimizer_bytes`` are the bytes that thinning a checkpoint frees; null for one of an older version, which nobody has
looked into.

``scan_at`` is when a checkpoint's tensors are to be looked through for numbers that are not finite, null once
``nonfinite_tensors`` has their number, or if nobody wants to know.

Non-finite numbers are null in the ranked column, and text ("nan", "inf", "-inf") in the column beside it. Times are
integers: microseconds since 1970 in UTC. ``digest`` is empty for an upload in parts, because the server never had its
bytes in order; ``sha256`` is empty until an upload says it or a reader asks for it. If ``original`` is false, no such
file ever existed. Text compares by code point, on every database.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    text,
    true,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_Id = BigInteger().with_variant(Integer, "sqlite")  # in SQLite only an INTEGER key is the rowid
_Text = Text().with_variant(Text(collation="C"), "postgresql")

namespaces = Table(
    "namespaces",
    metadata,
    Column("namespace", _Text, primary_key=True),
    Column("quota_bytes", BigInteger),
    Column("quota_checkpoints", BigInteger),
    Column("checkpoints", BigInteger, nullable=False, server_default="0"),
    Column("logical_bytes", BigInteger, nullable=False, server_default="0"),
    Column("stored_bytes", BigInteger, nullable=False, server_default="0"),
    Column("retention", JSON(none_as_null=True)),
)

models = Table(
    "models",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("namespace", _Text, nullable=False),
    Column("name", _Text, nullable=False),
    Column("best", _Text, nullable=False),
    Column("next_version", BigInteger, nullable=False),
    Column("checkpoints", BigInteger, nullable=False),
    Column("nbytes", BigInteger, nullable=False, server_default="0"),
    Column("new_bytes", BigInteger, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Column("retention", JSON(none_as_null=True)),
    UniqueConstraint("namespace", "name"),
    sqlite_autoincrement=True,
)
NEVER_USED = text("next_version = 1")
Index("ix_models_never_used", models.c.namespace, sqlite_where=NEVER_USED, postgresql_where=NEVER_USED)

runs = Table(
    "runs",
    metadata,
    Column("model_id", ForeignKey("models.id"), primary_key=True),
    Column("first", BigInteger, primary_key=True),
    Column("run", _Text),
    Column("latest", BigInteger, nullable=False),
    Column("checkpoints", BigInteger, nullable=False),
    Column("live", BigInteger, nullable=False),
    Index(None, "model_id", "run"),
    Index(None, "model_id", "latest"),
    sqlite_with_rowid=False,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("model_id", ForeignKey("models.id"), nullable=False),
    Column("version", BigInteger),
    Column("run", _Text),
    Column("epoch", BigInteger),
    Column("step", BigInteger),
    Column("loss", Double),
    Column("loss_nonfinite", _Text),
    Column("format", _Text, nullable=False),
    Column("devices", JSON, nullable=False),
    Column("components", JSON, nullable=False),
    Column("unsafe_globals", JSON, nullable=False),
    Column("manifest", _Text, nullable=False),
    Column("frame", _Text, nullable=False),
    Column("nbytes", BigInteger, nullable=False),
    Column("new_bytes", BigInteger, nullable=False),
    Column("digest", _Text, nullable=False),
    Column("sha256", _Text, nullable=False),
    Column("original", Boolean, nullable=False, server_default=true()),
    Column("created_at", BigInteger, nullable=False),
    Column("pinned_at", BigInteger),
    Column("pinned_by", _Text),
    Column("pin_reason", _Text),
    Column("slot", _Text),
    Column("expires_at", BigInteger),
    Column("thinned_at", BigInteger),
    Column("optimizer_bytes", BigInteger),
    Column("nonfinite_tensors", BigInteger),
    Column("scan_at", BigInteger),
    Column("merge", JSON(none_as_null=True)),
    UniqueConstraint("model_id", "version"),
    Index(None, "model_id", "epoch", "version"),
    Index(None, "model_id", "step", "version"),
    Index(None, "model_id", "loss", "version"),
    Index(None, "model_id", "nbytes", "version"),
    Index(None, "model_id", "created_at", "version"),
    Index(None, "model_id", "nonfinite_tensors", "version"),
    Index(None, "model_id", "run", "version"),
    Index(None, "model_id", "run", "epoch", "version"),
    Index(None, "model_id", "run", "step", "version"),
    Index(None, "model_id", "run", "loss", "version"),
    CheckConstraint("loss IS NULL OR loss_nonfinite IS NULL", name="one_loss"),
    sqlite_autoincrement=True,  # ids are never reused, so entries cached by id stay valid
)
Index(
    "ix_checkpoints_unfinished",
    checkpoints.c.created_at,
    sqlite_where=checkpoints.c.version.is_(None),
    postgresql_where=checkpoints.c.version.is_(None),
)

for _name, *_columns in (
    ("ix_checkpoints_expires_at", checkpoints.c.expires_at),
    ("ix_checkpoints_scan_at", checkpoints.c.scan_at),
    ("ix_checkpoints_model_id_slot", checkpoints.c.model_id, checkpoints.c.slot),
):
    _there = _columns[-1].is_not(None)
    Index(_name, *_columns, sqlite_where=_there, postgresql_where=_there)

metrics = Table(
    "metrics",
    metadata,
    Column("model_id", _Id, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("name", _Text, primary_key=True),
    Column("run", _Text),
    Column("value", Double),
    Column("nonfinite", _Text),
    ForeignKeyConstraint(["model_id", "version"], ["checkpoints.model_id", "checkpoints.version"], ondelete="CASCADE"),
    Index(None, "model_id", "name", "value", "version"),
    Index(None, "model_id", "run", "name", "value", "version"),
    CheckConstraint("(value IS NULL) <> (nonfinite IS NULL)", name="one_value"),
    sqlite_with_rowid=False,
)

tags = Table(
    "tags",
    metadata,
    Column("model_id", _Id, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("name", _Text, primary_key=True),
    Column("run", _Text),
    Column("value", _Text, nullable=False),
    ForeignKeyConstraint(["model_id", "version"], ["checkpoints.model_id", "checkpoints.version"], ondelete="CASCADE"),
    Index(None, "model_id", "name", "value", "version"),
    Index(None, "model_id", "run", "name", "value", "version"),
    sqlite_with_rowid=False,
)

aliases = Table(
    "aliases",
    metadata,
    Column("model_id", _Id, primary_key=True),
    Column("name", _Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    ForeignKeyConstraint(["model_id", "version"], ["checkpoints.model_id", "checkpoints.version"]),
    Index(None, "model_id", "version"),
    sqlite_with_rowid=False,
)

alias_changes = Table(
    "alias_changes",
    metadata,
    Column("model_id", ForeignKey("models.id"), primary_key=True),
    Column("name", _Text, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("version", BigInteger),
    Column("previous_version", BigInteger),
    Column("protected", Boolean, nullable=False),
    Column("note", _Text),
    Column("at", BigInteger, nullable=False),
    Column("by", _Text),
    sqlite_with_rowid=False,
)

lineage = Table(
    "lineage",
    metadata,
    Column("namespace", _Text, primary_key=True),
    Column("name", _Text, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("relation", _Text, primary_key=True),
    Column("position", Integer, primary_key=True, server_default="0"),
    Column("parent_namespace", _Text, nullable=False),
    Column("parent_name", _Text, nullable=False),
    Column("parent_version", BigInteger, nullable=False),
    Column("weight", Double),
    Index(None, "parent_namespace", "parent_name", "parent_version"),
    CheckConstraint("relation IN ('parent', 'warm_started_from', 'merged_from')", name="relation"),
    sqlite_with_rowid=False,
)
removed_checkpoints = Table(
    "removed_checkpoints",
    metadata,
    Column("model_id", ForeignKey("models.id"), primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("checkpoint_id", ForeignKey("checkpoints.id"), index=True),
    Column("run", _Text),
    Column("epoch", BigInteger),
    Column("step", BigInteger),
    Column("loss", Double),
    Column("loss_nonfinite", _Text),
    Column("metrics", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("removed_at", BigInteger, nullable=False),
    Column("removed_by", _Text),
    Column("reason", _Text, nullable=False),
    Column("purge_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
Index(
    "ix_removed_checkpoints_purge_at",
    removed_checkpoints.c.purge_at,
    sqlite_where=removed_checkpoints.c.checkpoint_id.is_not(None),
    postgresql_where=removed_checkpoints.c.checkpoint_id.is_not(None),
)

packs = Table(
    "packs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", _Text, nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("state", _Text, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("parent", _Text),
    Index(None, "state", "lease_until"),
    Index(None, "parent", sqlite_where=text("parent IS NOT NULL"), postgresql_where=text("parent IS NOT NULL")),
    CheckConstraint("state IN ('writing', 'sealed')", name="state"),
    sqlite_autoincrement=True,
)

blobs = Table(
    "blobs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("namespace", _Text, nullable=False),
    Column("digest", _Text, nullable=False),
    Column("pack_id", ForeignKey("packs.id", ondelete="RESTRICT"), nullable=False, index=True),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("crc32", BigInteger, nullable=False),
    Column("blocks", LargeBinary, nullable=False),
    Column("unused_since", BigInteger),
    Column("damaged_at", BigInteger),
    Column("healed_at", BigInteger),
    UniqueConstraint("namespace", "digest"),
)
for _column in (blobs.c.unused_since, blobs.c.damaged_at, blobs.c.healed_at):
    Index(
        f"ix_blobs_{_column.name}",
        _column,
        sqlite_where=_column.is_not(None),
        postgresql_where=_column.is_not(None),
    )

checkpoint_blobs = Table(
    "checkpoint_blobs",
    metadata,
    Column("checkpoint_id", ForeignKey("checkpoints.id", ondelete="CASCADE"), primary_key=True),
    Column("blob_id", ForeignKey("blobs.id", ondelete="RESTRICT"), primary_key=True, index=True),
    sqlite_with_rowid=False,
)

checksums = Table(
    "checksums",
    metadata,
    Column("namespace", _Text, primary_key=True),
    Column("key", _Text, primary_key=True),
    Column("digest", _Text, nullable=False),
    Column("crc32", BigInteger, nullable=False),
    Index(None, "namespace", "digest"),
    sqlite_with_rowid=False,
)

tensor_stats = Table(
    "tensor_stats",
    metadata,
    Column("namespace", _Text, primary_key=True),
    Column("key", _Text, primary_key=True),
    Column("digest", _Text, nullable=False),
    Column("text", _Text, nullable=False),
    Index(None, "namespace", "digest"),
    sqlite_with_rowid=False,
)

plans = Table(
    "plans",
    metadata,
    Column("namespace", _Text, primary_key=True),
    Column("digest", _Text, primary_key=True),
    Column("document", _Text, nullable=False),
    Column("kept_until", BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("model_id", ForeignKey("models.id"), primary_key=True),
    Column("key", _Text, primary_key=True),
    Column("checkpoint_id", ForeignKey("checkpoints.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("kept_until", BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", _Text, primary_key=True),
    Column("namespace", _Text, nullable=False),
    Column("name", _Text, nullable=False),
    Column("digest", _Text, nullable=False),
    Column("split", LargeBinary, nullable=False),
    Column("original", Boolean, nullable=False),
    Column("kept_until", BigInteger, nullable=False, index=True),
    Column("parent", _Text),
    UniqueConstraint("namespace", "name", "digest"),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload_id", ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("first", BigInteger, primary_key=True),
    Column("end", BigInteger, primary_key=True),
    Column("checksums", LargeBinary, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", _Text, primary_key=True),
    Column("name", _Text, nullable=False, unique=True),
    Column("secret_hash", _Text, nullable=False),
    Column("scope", _Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("namespaces", JSON(none_as_null=True)),
    Column("last_used_at", BigInteger),
    CheckConstraint("scope IN ('read', 'write', 'admin')", name="scope"),
)

events = Table(
    "events",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", _Text, nullable=False),
    Column("namespace", _Text),
    Column("name", _Text),
    Column("version", BigInteger),
    Column("alias", _Text),
    Column("by", _Text),
    Column("address", _Text),
    Column("detail", JSON, nullable=False),
    Index(None, "namespace", "name", "id"),
    Index(None, "namespace", "id"),
)

is_indexed_by_kind = events.c.kind != literal_column("'checkpoint-created'")
"""The condition of the events that are indexed by kind. Commits write most events, and should not pay for it."""

for _names in (("namespace", "name", "kind", "id"), ("namespace", "kind", "id"), ("kind", "id")):
    Index(
        f"ix_events_{'_'.join(_names)}",
        *(events.c[_name] for _name in _names),
        sqlite_where=is_indexed_by_kind,
        postgresql_where=is_indexed_by_kind,
    )

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", _Text, primary_key=True),
    Column("namespace", _Text, nullable=False),
    Column("name", _Text, nullable=False),
    Column("url", _Text, nullable=False),
    Column("kinds", JSON, nullable=False),
    Column("secret", _Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", _Text),
    Column("failures", BigInteger, nullable=False),
    Column("next_at", BigInteger, index=True),
    Index(None, "namespace", "name"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("webhook_id", ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", BigInteger, nullable=False),
    Column("kind", _Text, nullable=False),
    Column("body", _Text, nullable=False),
    Column("state", _Text, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("status", BigInteger),
    Column("error", _Text),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("tried_at", BigInteger),
    Index(None, "webhook_id", "state", "id"),
    CheckConstraint("state IN ('waiting', 'delivered', 'failed')", name="state"),
    sqlite_autoincrement=True,
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", _Text, primary_key=True),
    Column("maker", _Text, nullable=False, index=True),
    Column("seal", _Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("key", _Text, nullable=False),
)

hub_objects = Table(
    "hub_objects",
    metadata,
    Column("namespace", _Text, primary_key=True),
    Column("sha256", _Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("pack_id", ForeignKey("packs.id", ondelete="CASCADE"), nullable=False, index=True),
    sqlite_with_rowid=False,
)

hub_xorbs = Table(
    "hub_xorbs",
    metadata,
    Column("namespace", _Text, primary_key=True),
    Column("session", _Text, primary_key=True),
    Column("hash", _Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("chunks", BigInteger, nullable=False),
    Column("is_used", Boolean, nullable=False),
    Column("pack_id", ForeignKey("packs.id", ondelete="CASCADE"), nullable=False, index=True),
    sqlite_with_rowid=False,
)

hub_commits = Table(
    "hub_commits",
    metadata,
    Column("checkpoint_id", ForeignKey("checkpoints.id", ondelete="CASCADE"), primary_key=True),
    Column("title", _Text, nullable=False),
    Column("message", _Text, nullable=False),
    Column("sha256s", JSON, nullable=False),
)

hub_tags = Table(
    "hub_tags",
    metadata,
    Column("model_id", ForeignKey("models.id"), primary_key=True),
    Column("tag", _Text, primary_key=True),
    Column("checkpoint_id", ForeignKey("checkpoints.id", ondelete="CASCADE"), nullable=False, index=True),
    sqlite_with_rowid=False,
)

hub_drafts = Table(
    "hub_drafts",
    metadata,
    Column("namespace", _Text, primary_key=True),
    Column("name", _Text, primary_key=True),
    Column("files", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

loose_files = Table(
    "loose_files",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("namespace", _Text, nullable=False),
    Column("name", _Text, nullable=False),
    Column("path", _Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("recipe", LargeBinary),
    Column("recipe_bytes", BigInteger, nullable=False),
    Column("writer", _Text, nullable=False),
    Column("replaced", BigInteger),
    Column("written_at", BigInteger, nullable=False),
    Column("kept_until", BigInteger, nullable=False, index=True),
    UniqueConstraint("namespace", "name", "path"),
    sqlite_autoincrement=True,
)

leases = Table(
    "leases",
    metadata,
    Column("name", _Text, primary_key=True),
    Column("holder", _Text, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
)
