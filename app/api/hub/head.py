"""The head of a repository: its newest checkpoint, or the draft of a model that has none yet."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...catalog import hub
from ...catalog.checkpoints import resolve
from ...deliver.files import StoredPath
from ...errors import NotFound
from ...values.checkpoint import Checkpoint, ModelName
from ...values.draft import Draft
from ..services import Services
from .commits import MAIN, commit_of, find


@dataclass(frozen=True, slots=True)
class Head:
    """``files`` are those of the checkpoint, by path, and ``sha256s`` the hashes that are known of them. A draft
    beside a checkpoint waits for the next commit.
    """

    model: ModelName
    checkpoint: Checkpoint | None
    draft: Draft | None
    files: Mapping[str, StoredPath] = field(default_factory=dict)
    sha256s: Mapping[str, str] = field(default_factory=dict)

    @property
    def commit(self) -> str | None:
        if self.checkpoint is not None:
            return commit_of(self.checkpoint)
        return None if self.draft is None else self.draft.commit

    @property
    def version(self) -> int:
        return 0 if self.checkpoint is None else self.checkpoint.version


def head_of(services: Services, model: ModelName) -> Head:
    """Find the head. Blocks. Raises NotFound, code ``model-not-found``, for a model that nobody has made."""
    with services.catalog.read() as session:
        draft = hub.find_draft(session, model)
        try:
            checkpoint = resolve(session, model, "latest")
        except NotFound as error:
            if draft is None and error.code == "model-not-found":
                raise
            return Head(model, None, draft)
        commit = hub.commits(session, [checkpoint.id]).get(checkpoint.id)
    files = {file.path: file for file in services.deliver.files(checkpoint)}
    return Head(model, checkpoint, draft, files, {} if commit is None else commit.sha256s)


async def find_or_draft(services: Services, model: ModelName, revision: str) -> Checkpoint | Draft:
    """Find the checkpoint of a revision, or the draft if it is meant. Raises NotFound and InvalidRequest."""
    try:
        return await find(services, model, revision)
    except NotFound as error:
        draft = await services.asks.run(lambda: _draft(services, model))
        if draft is None:
            raise
        if revision in {MAIN, draft.commit}:
            return draft
        detail = f"{model} has no {revision[:200]!r}"
        raise NotFound(detail, code="checkpoint-not-found") from error


def _draft(services: Services, model: ModelName) -> Draft | None:
    with services.catalog.read() as session:
        return hub.find_draft(session, model)
