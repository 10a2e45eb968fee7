"""Idempotency keys: an upload sent again with the same key returns the first checkpoint.

The transaction that publishes a checkpoint also writes its key, so a crash cannot keep one and lose the other. The
database deletes the key with its checkpoint (cascade). Of two commits with one key the second is rolled back.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, select

from ..errors import KeyInUse
from ..values.checkpoint import Checkpoint, ModelName
from .rows import load_checkpoints, to_microseconds
from .session import ReadSession, WriteSession
from .tables import checkpoints, idempotency_keys, models

KEPT = timedelta(hours=24)
"""Shortest lifetime of a key. A client that lost the answer has to retry within it."""

_PRUNED_AT_ONCE = 100
"""Most expired keys that one commit deletes: more than the one key it adds, but few enough to stay fast."""


def find(s: ReadSession, model: ModelName, key: str) -> Checkpoint | None:
    """The checkpoint published under ``key``, or None."""
    row = s.select(
        select(checkpoints.c.model_id, checkpoints.c.version)
        .join(idempotency_keys, idempotency_keys.c.checkpoint_id == checkpoints.c.id)
        .join(models, models.c.id == idempotency_keys.c.model_id)
        .where(models.c.namespace == model.namespace, models.c.name == model.name, idempotency_keys.c.key == key)
    ).first()
    return None if row is None else load_checkpoints(s, model, row.model_id, [row.version])[0]


def remember(w: WriteSession, model_id: int, key: str, checkpoint_id: int) -> None:
    """Store the key of a checkpoint that is being published, and delete expired keys of its model.

    Raises KeyInUse if another checkpoint was published under ``key``: roll this one back.
    """
    k = idempotency_keys.c
    if w.select(select(k.key).where(k.model_id == model_id, k.key == key)).first() is not None:
        raise KeyInUse("another upload with this Idempotency-Key was stored first; send this one again")
    now = datetime.now(UTC)
    is_over = k.model_id == model_id, k.kept_until < to_microseconds(now)
    over = select(k.key).where(*is_over).limit(_PRUNED_AT_ONCE)
    w.postpone(delete(idempotency_keys).where(k.model_id == model_id, k.key.in_(over)))
    row = {"model_id": model_id, "key": key, "checkpoint_id": checkpoint_id, "kept_until": to_microseconds(now + KEPT)}
    w.postpone(insert(idempotency_keys), [row])
