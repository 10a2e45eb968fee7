"""Idempotency keys: an upload sent again with the same key returns the first checkpoint.

The transaction that publishes a checkpoint also writes its key, so a crash cannot keep one and lose the other. The
database deletes the key with its checkpoint (cascade). Of two commits with one key the second is rolled back.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import bindparam, delete, insert, select

from ..errors import KeyInUse
from ..values.checkpoint import Checkpoint, ModelName
from .rows import load_checkpoints, to_microseconds
from .session import ReadSession, WriteSession
from .tables import checkpoints, idempotency_keys, models

KEPT = timedelta(hours=24)
"""Shortest lifetime of a key. A client that lost the answer has to retry within it."""

_PRUNED_AT_ONCE = 100
"""Most expired keys that one commit deletes: more than the one key it adds, but few enough to stay fast."""

_k = idempotency_keys.c
_OF_MODEL = _k.model_id == bindparam("model_id")
_FIND = (
    select(checkpoints.c.model_id, checkpoints.c.version)
    .join(idempotency_keys, _k.checkpoint_id == checkpoints.c.id)
    .join(models, models.c.id == _k.model_id)
    .where(models.c.namespace == bindparam("namespace"), models.c.name == bindparam("name"), _k.key == bindparam("key"))
)
_KEY = select(_k.key).where(_OF_MODEL, _k.key == bindparam("key"))
_OVER = select(_k.key).where(_OF_MODEL, _k.kept_until < bindparam("now")).limit(_PRUNED_AT_ONCE)
_PRUNE = delete(idempotency_keys).where(_OF_MODEL, _k.key.in_(_OVER))


def find(s: ReadSession, model: ModelName, key: str) -> Checkpoint | None:
    """The checkpoint published under ``key``, or None."""
    row = s.select(_FIND, namespace=model.namespace, name=model.name, key=key).first()
    return None if row is None else load_checkpoints(s, model, row.model_id, [row.version])[0]


def remember(w: WriteSession, model_id: int, key: str, checkpoint_id: int) -> None:
    """Store the key of a checkpoint that is being published, and delete expired keys of its model.

    Raises KeyInUse if another checkpoint was published under ``key``: roll this one back.
    """
    if w.select(_KEY, model_id=model_id, key=key).first() is not None:
        raise KeyInUse("another upload with this Idempotency-Key was stored first; send this one again")
    now = datetime.now(UTC)
    w.postpone(_PRUNE, [{"model_id": model_id, "now": to_microseconds(now)}])
    row = {"model_id": model_id, "key": key, "checkpoint_id": checkpoint_id, "kept_until": to_microseconds(now + KEPT)}
    w.postpone(insert(idempotency_keys), [row])
