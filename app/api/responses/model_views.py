"""Models, their aliases and their history as JSON."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime

from pydantic import BaseModel, Field

from ...catalog.history import Entry, State
from ...catalog.models import Model
from ...retention import Preview
from ...values.alias import Alias, AliasChange
from ...values.checkpoint import Checkpoint, RemovalReason
from ..requests.retention import RetentionRules
from .views import CheckpointView, finite, model_url, names_of_nonfinite

MAX_LISTED = 10_000
MAX_WARNINGS = 20


class HistoryEntry(BaseModel):
    """The numbers of a checkpoint. Those that are not finite read as null, and `nonfinite` names them."""

    version: int
    run: str | None
    epoch: int | None
    step: int | None
    loss: float | None
    metrics: dict[str, float | None]
    nonfinite: list[str]
    created_at: datetime
    state: State

    @classmethod
    def of(cls, entry: Entry) -> "HistoryEntry":
        return cls(
            version=entry.version,
            run=entry.run,
            epoch=entry.epoch,
            step=entry.step,
            loss=finite(entry.loss),
            metrics={name: finite(number) for name, number in entry.metrics.items()},
            nonfinite=names_of_nonfinite(entry.loss, entry.metrics),
            created_at=entry.created_at,
            state=entry.state,
        )


class HistoryPage(BaseModel):
    items: list[HistoryEntry]
    next: str | None = Field(description="the cursor of the next page")

    @classmethod
    def of(cls, entries: Iterable[Entry], cursor: str | None) -> "HistoryPage":
        return cls(items=[HistoryEntry.of(entry) for entry in entries], next=cursor)


class Removed(BaseModel):
    """A checkpoint that would go to the trash: by the rules, because it expired, or because its slot has a newer."""

    version: int
    reason: RemovalReason


class Kept(BaseModel):
    """A checkpoint that would stay, and all that keeps it; nothing where no rule removes."""

    version: int
    by: list[str] = Field(examples=[["newest", "keep_last", "alias prod"]])


class RetentionPreview(BaseModel):
    """The effects that rules would have. Lists end after 10,000 checkpoints, the newest of each kind; the numbers count
    all.
    """

    trashed_count: int
    thinned_count: int
    kept_count: int
    trash_bytes: int = Field(description="bytes that are freed once the trash is purged")
    thinned_bytes: int = Field(description="bytes of optimizers, freed unless other checkpoints share them")
    warnings: list[str] = Field(description="at most 20")
    trashed: list[Removed]
    thinned: list[int]
    kept: list[Kept]

    @classmethod
    def of(cls, preview: Preview) -> "RetentionPreview":
        return cls(
            trashed_count=len(preview.removed),
            thinned_count=len(preview.thinned),
            kept_count=len(preview.kept),
            trash_bytes=preview.trash_bytes,
            thinned_bytes=preview.thinned_bytes,
            warnings=list(preview.warnings[:MAX_WARNINGS]),
            trashed=[Removed(version=v, reason=preview.removed[v]) for v in list(preview.removed)[-MAX_LISTED:]],
            thinned=list(preview.thinned[-MAX_LISTED:]),
            kept=[Kept(version=v, by=list(preview.kept[v])) for v in list(preview.kept)[-MAX_LISTED:]],
        )


class ModelView(BaseModel):
    """A line of checkpoints; `best` is the meaning of the ref `best` in it."""

    model: str = Field(examples=["vision/resnet50"])
    best: str = Field(examples=["min:loss"])
    checkpoints: int = Field(examples=[12])
    created_at: datetime
    retention: RetentionRules | None = Field(description="null: those of its namespace, if it has any")
    url: str

    @classmethod
    def of(cls, model: Model) -> "ModelView":
        return cls(
            model=str(model.name),
            best=model.best,
            checkpoints=model.checkpoints,
            created_at=model.created_at,
            retention=RetentionRules.of(model.retention),
            url=model_url(model.name),
        )


class ModelDetails(ModelView):
    """A model with its latest and best checkpoint; null where there is none."""

    latest_checkpoint: CheckpointView | None
    best_checkpoint: CheckpointView | None

    @classmethod
    def with_checkpoints(cls, model: Model, latest: Checkpoint | None, best: Checkpoint | None) -> "ModelDetails":
        return cls(
            **ModelView.of(model).model_dump(),
            latest_checkpoint=None if latest is None else CheckpointView.of(latest),
            best_checkpoint=None if best is None else CheckpointView.of(best),
        )


class AliasView(BaseModel):
    """A name of one checkpoint, until it is moved. `revision` grows with each change."""

    alias: str = Field(examples=["prod"])
    version: int = Field(examples=[12])
    previous_version: int | None = Field(description="the version before the last move", examples=[11])
    revision: int = Field(examples=[3])
    protected: bool
    note: str | None
    moved_at: datetime
    moved_by: str | None = Field(description="the token that changed it last; null on a server without tokens")

    @classmethod
    def of(cls, alias: Alias) -> "AliasView":
        return cls(
            alias=alias.name,
            version=alias.version,
            previous_version=alias.previous_version,
            revision=alias.revision,
            protected=alias.protected,
            note=alias.note,
            moved_at=alias.moved_at,
            moved_by=alias.moved_by,
        )


class AliasList(BaseModel):
    items: list[AliasView]


class AliasChangeView(BaseModel):
    """One change of an alias; `version` is null if it removed the alias."""

    revision: int
    version: int | None
    previous_version: int | None
    protected: bool
    note: str | None
    at: datetime
    by: str | None


class AliasChangePage(BaseModel):
    items: list[AliasChangeView]
    next: str | None = Field(description="the cursor of the next page")

    @classmethod
    def of(cls, changes: Iterable[AliasChange], cursor: str | None) -> "AliasChangePage":
        return cls(items=[AliasChangeView(**asdict(change)) for change in changes], next=cursor)


class ModelPage(BaseModel):
    items: list[ModelView]
    next: str | None = Field(description="the cursor of the next page")
