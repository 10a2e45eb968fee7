"""Idempotency keys: an upload that is sent again with the key of the first is the first.

A key is written by the very transaction that publishes its checkpoint, so a crash cannot keep one and lose the other;
and it goes with its checkpoint, by the database's own cascade. Of two commits with one key the second is undone.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, select, tuple_

from ..errors import KeyInUse
from ..values.checkpoint import Checkpoint, ModelName
from .rows import load_checkpoints, to_microseconds
from .session import ReadSession, WriteSession
from .tables import checkpoints, idempotency_keys, models

KEPT = timedelta(hours=24)
"""How long a key is good for, at least: whoever lost an answer asks again within it."""

_PRUNED_AT_ONCE = 100
"""More than the one that each commit adds, few enough that no commit pays for a busy day."""


def find(s: ReadSession, model: ModelName, key: str) -> Checkpoint | None:
    """The checkpoint that was published under ``key``."""
    row = s.select(
        select(checkpoints.c.model_id, checkpoints.c.version)
        .join(idempotency_keys, idempotency_keys.c.checkpoint_id == checkpoints.c.id)
        .join(models, models.c.id == idempotency_keys.c.model_id)
        .where(models.c.namespace == model.namespace, models.c.name == model.name, idempotency_keys.c.key == key)
    ).first()
    return None if row is None else load_checkpoints(s, model, row.model_id, [row.version])[0]


def remember(w: WriteSession, model_id: int, key: str, checkpoint_id: int) -> None:
    """Part of publishing the checkpoint. Raises KeyInUse where another was published under ``key``: undo this one.

    Keys whose time is over are forgotten on the way.
    """
    k = idempotency_keys.c
    if w.select(select(k.key).where(k.model_id == model_id, k.key == key)).first() is not None:
        raise KeyInUse("another upload with this Idempotency-Key was stored meanwhile; send this one again")
    now = datetime.now(UTC)
    over = select(k.model_id, k.key).where(k.kept_until < to_microseconds(now)).limit(_PRUNED_AT_ONCE)
    w.execute(delete(idempotency_keys).where(tuple_(k.model_id, k.key).in_(over)))
    row = {"model_id": model_id, "key": key, "checkpoint_id": checkpoint_id, "kept_until": to_microseconds(now + KEPT)}
    w.execute(insert(idempotency_keys).values(row))
