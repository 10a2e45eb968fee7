"""Checkpoints and models as JSON."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated
from urllib.parse import quote, urlencode

from pydantic import BaseModel, BeforeValidator, Field

from ...catalog.models import Model
from ...select.components import default_component
from ...values.alias import Alias, AliasChange
from ...values.checkpoint import Checkpoint, ModelName
from ...values.manifest import Component, ComponentKind


def model_url(model: ModelName) -> str:
    return f"/v1/models/{model}"


def checkpoint_url(model: ModelName, version: int) -> str:
    return f"{model_url(model)}/checkpoints/{version}"


def finite(number: float | None) -> float | None:
    """Replace NaN and infinity, which JSON lacks, by None."""
    return number if number is None or math.isfinite(number) else None


def printable(text: str) -> str:
    """Escape lone surrogates, which text from a file may hold and Unicode may not."""
    return text.encode(errors="backslashreplace").decode()


FileText = Annotated[str, BeforeValidator(printable)]


class ComponentView(BaseModel):
    """A state_dict inside a checkpoint; ``keys`` counts, ``bytes`` counts shared storages once."""

    name: FileText = Field(examples=["model_state_dict"])
    kind: ComponentKind
    keys: int = Field(examples=[267])
    bytes: int = Field(examples=[97_800_000])
    url: str


class CheckpointUrls(BaseModel):
    """Relative URLs, ready to be fetched. The last segment of a download is unique, because torch.hub caches by it."""

    self: str
    tensors: str
    state_dict: str | None = Field(description="the default component; null if a request must name one")
    file: str
    original: str | None = Field(description="null for a negotiated upload without an original file")


class CheckpointView(BaseModel):
    """A checkpoint. Numbers that are not finite read as null, and `nonfinite` names them."""

    model: str = Field(examples=["vision/resnet50"])
    version: int = Field(examples=[12])
    run: str | None = Field(examples=["nightly"])
    epoch: int | None = Field(examples=[3])
    step: int | None = Field(examples=[9000])
    loss: float | None = Field(examples=[0.12])
    metrics: dict[str, float | None] = Field(examples=[{"val_acc": 0.91}])
    tags: dict[str, str] = Field(examples=[{"author": "me"}])
    aliases: list[str] = Field(examples=[["prod"]])
    nonfinite: list[str] = Field(examples=[[]], description="fields that are not finite: `loss` or `metric.NAME`")
    format: str = Field(examples=["torch_zip"])
    devices: list[FileText] = Field(
        examples=[["cuda:0"]], description="devices of the storages when the checkpoint was saved"
    )
    components: list[ComponentView]
    more_components: int = Field(
        description="number of components not listed here; `tensors` lists them all", examples=[0]
    )
    unsafe_globals: list[FileText] = Field(
        examples=[["numpy.dtype"]], description="names in the pickle that `weights_only=True` refuses"
    )
    bytes: int = Field(examples=[195_600_000])
    new_bytes: int = Field(description="bytes that the upload added to the store")
    digest: str | None = Field(
        description="digest of the uploaded file, defined in docs/design.md; null for a negotiated upload"
    )
    sha256: str | None = Field(description="SHA-256 of the uploaded file, in hex; null for a negotiated upload")
    created_at: datetime
    parent: str | None = Field(
        examples=["vision/resnet50@11"], description="the checkpoint that training went on from; it may be gone"
    )
    warm_started_from: str | None = Field(
        examples=[None], description="the checkpoint whose tensors training began with; it may be gone"
    )
    urls: CheckpointUrls

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "CheckpointView":
        numbers = {"loss": checkpoint.loss, **{f"metric.{name}": x for name, x in checkpoint.metrics.items()}}
        return cls(
            model=str(checkpoint.model),
            version=checkpoint.version,
            run=checkpoint.run,
            epoch=checkpoint.epoch,
            step=checkpoint.step,
            loss=finite(checkpoint.loss),
            metrics={name: finite(number) for name, number in checkpoint.metrics.items()},
            tags=dict(checkpoint.tags),
            aliases=list(checkpoint.aliases),
            nonfinite=[name for name, number in numbers.items() if number is not None and not math.isfinite(number)],
            format=checkpoint.format,
            devices=list(checkpoint.devices),
            more_components=checkpoint.more_components,
            components=[_component(checkpoint, component) for component in checkpoint.components],
            unsafe_globals=list(checkpoint.unsafe_globals),
            bytes=checkpoint.nbytes,
            new_bytes=checkpoint.new_bytes,
            digest=checkpoint.digest,
            sha256=checkpoint.sha256,
            created_at=checkpoint.created_at,
            parent=None if checkpoint.parent is None else str(checkpoint.parent),
            warm_started_from=None if checkpoint.warm_started_from is None else str(checkpoint.warm_started_from),
            urls=_urls(checkpoint),
        )


class CheckpointPage(BaseModel):
    items: list[CheckpointView]
    next: str | None = Field(description="the cursor of the next page")

    @classmethod
    def of(cls, checkpoints: Iterable[Checkpoint], cursor: str | None) -> "CheckpointPage":
        return cls(items=[CheckpointView.of(checkpoint) for checkpoint in checkpoints], next=cursor)


class ModelView(BaseModel):
    """A line of checkpoints; `best` is the meaning of the ref `best` in it."""

    model: str = Field(examples=["vision/resnet50"])
    best: str = Field(examples=["min:loss"])
    checkpoints: int = Field(examples=[12])
    created_at: datetime
    url: str

    @classmethod
    def of(cls, model: Model) -> "ModelView":
        return cls(
            model=str(model.name),
            best=model.best,
            checkpoints=model.checkpoints,
            created_at=model.created_at,
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


def _component(checkpoint: Checkpoint, component: Component) -> ComponentView:
    return ComponentView(
        name=component.name,
        kind=component.kind,
        keys=component.keys,
        bytes=component.nbytes,
        url=_download_url(checkpoint, "state_dict", component.name),
    )


def _urls(checkpoint: Checkpoint) -> CheckpointUrls:
    here = checkpoint_url(checkpoint.model, checkpoint.version)
    components = checkpoint.components
    has_default = not checkpoint.more_components and (not components or default_component(components) is not None)
    return CheckpointUrls(
        self=here,
        tensors=f"{here}/tensors",
        state_dict=_download_url(checkpoint, "state_dict") if has_default else None,
        file=_download_url(checkpoint, "file"),
        original=_original_url(checkpoint) if checkpoint.original else None,
    )


def _original_url(checkpoint: Checkpoint) -> str:
    name = checkpoint.file_name(_unique("original", None, checkpoint), "pt", checkpoint.sha256)
    return f"{checkpoint_url(checkpoint.model, checkpoint.version)}/original/{name}"


def _unique(route: str, component: str | None, checkpoint: Checkpoint) -> str:
    """Return text that differs for every file, because torch.hub caches by a URL's last segment."""
    text = f"{route} {component!r} {checkpoint.digest or checkpoint.manifest}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _download_url(checkpoint: Checkpoint, route: str, component: str | None = None) -> str:
    name = checkpoint.file_name(_unique(route, component, checkpoint), "pt", None)
    query = "" if component is None else "?" + urlencode({"component": printable(component)}, quote_via=quote)
    return f"{checkpoint_url(checkpoint.model, checkpoint.version)}/{route}/{name}{query}"
