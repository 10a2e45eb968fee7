"""Checkpoints in the making: the parents that running uploads name, which retention keeps until they end."""

from datetime import UTC, datetime

from sqlalchemy import bindparam, select, union_all

from ..values.checkpoint import ModelName, parse_checkpoint_name
from .rows import to_microseconds
from .session import ReadSession
from .tables import packs, uploads

_named = union_all(
    select(packs.c.parent).where(packs.c.parent.is_not(None), packs.c.lease_until > bindparam("now")),
    select(uploads.c.parent).where(uploads.c.parent.is_not(None), uploads.c.kept_until > bindparam("now")),
).subquery()
_PARENTS = select(_named.c.parent).distinct()


def parents_in_use(s: ReadSession, model: ModelName) -> set[int]:
    """Return the versions of ``model`` that a running upload names as its parent."""
    texts = s.select(_PARENTS, now=to_microseconds(datetime.now(UTC))).scalars()
    named = {parse_checkpoint_name(text) for text in texts}
    return {one.version for one in named if one is not None and one.model == model}
