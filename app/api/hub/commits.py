"""Revisions of the hub, which are refs, and its commits, which are versions.

Clients keep for ever what they got under a commit, so its 40 hexadecimal digits name one checkpoint: 24 are a hash of
it, and 16 are its version, by which it is found again.
"""

import re

from ...catalog import hub
from ...catalog.refs import is_reserved
from ...errors import NotFound
from ...values.checkpoint import Checkpoint, ModelName
from ...values.hub import HASHED, commit_id
from ..services import Services

MAIN = "main"
"""The hub's name for the newest commit."""

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_TAG = re.compile(r"v?[0-9][A-Za-z0-9._-]{0,126}", re.ASCII)


def commit_of(checkpoint: Checkpoint) -> str:
    """Return the commit that is a checkpoint."""
    text = f"{checkpoint.model}@{checkpoint.version} {checkpoint.manifest} {checkpoint.created_at.isoformat()}"
    return commit_id(text, checkpoint.version)


def is_commit(revision: str) -> bool:
    """Return whether a revision names one version for ever."""
    return _COMMIT.fullmatch(revision) is not None


def is_tag(name: str) -> bool:
    """Return whether a tag of the hub has a name that no alias can have, such as ``v1``."""
    return _TAG.fullmatch(name) is not None and is_reserved(name)


async def find(services: Services, model: ModelName, revision: str) -> Checkpoint:
    """Find the checkpoint of a revision: a commit, ``main``, a tag, or any ref. Raises NotFound and InvalidRequest."""
    if is_tag(revision) and not is_commit(revision):
        version = await services.asks.run(lambda: _tagged(services, model, revision))
        return await services.find(model, revision if version is None else str(version), None)
    if not is_commit(revision):
        return await services.find(model, "latest" if revision == MAIN else revision, None)
    checkpoint = await services.find(model, str(int(revision[HASHED:], 16)), None)
    if commit_of(checkpoint) != revision:
        raise NotFound(f"{model} has no commit {revision}", code="checkpoint-not-found")
    return checkpoint


def _tagged(services: Services, model: ModelName, name: str) -> int | None:
    with services.catalog.read() as session:
        return hub.tags(session, model).get(name)
