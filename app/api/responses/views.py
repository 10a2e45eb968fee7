"""Checkpoints and models as JSON."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated
from urllib.parse import quote, urlencode

from pydantic import BaseModel, BeforeValidator, Field

from ...select.components import default_component
from ...values.checkpoint import Checkpoint, Merge, MergeMethod, ModelName, RemovalReason
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


class PinView(BaseModel):
    """Why a checkpoint has to stay, since when, and by which token's wish."""

    reason: str | None
    at: datetime
    by: str | None


class MergeSourceView(BaseModel):
    """A checkpoint that a merge was made of; it may be gone."""

    checkpoint: str = Field(examples=["vision/resnet50@11"])
    weight: float = Field(examples=[0.5], description="the weight that its tensors have in the result")


class MergeView(BaseModel):
    """How a checkpoint was computed from others."""

    method: MergeMethod
    component: FileText | None = Field(examples=["model_state_dict"])
    decay: float | None = Field(description="of an `ema`")
    of: list[MergeSourceView]

    @classmethod
    def of_merge(cls, merge: Merge) -> "MergeView":
        return cls(
            method=merge.method,
            component=merge.component,
            decay=merge.decay,
            of=[MergeSourceView(checkpoint=str(each.checkpoint), weight=each.weight) for each in merge.sources],
        )


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
    sha256: str | None = Field(
        description="SHA-256 of the uploaded file, in hex; null until the upload says it (`Repr-Digest`) or a "
        "download of `original` asks for it (`Want-Repr-Digest: sha-256=1`)"
    )
    created_at: datetime
    parent: str | None = Field(
        examples=["vision/resnet50@11"], description="the checkpoint that training went on from; it may be gone"
    )
    warm_started_from: str | None = Field(
        examples=[None], description="the checkpoint whose tensors training began with; it may be gone"
    )
    merge: MergeView | None = Field(description="how it was computed from others; null for an upload")
    pin: PinView | None
    slot: str | None = Field(description="the next checkpoint of the run in this slot replaces this one")
    expires_at: datetime | None = Field(description="when the checkpoint goes to the trash by itself")
    thinned_at: datetime | None = Field(description="when its optimizers' bytes were removed")
    nonfinite_tensors: int | None = Field(
        description="number of tensors with NaN or an infinity; null without a scan, and until it has ended"
    )
    deleted_at: datetime | None = Field(description="when it went to the trash; null outside of the trash")
    deleted_by: str | None = Field(description="the token that deleted it; null for a rule, and without tokens")
    deleted_reason: RemovalReason | None = Field(description="`deleted` by a request, or which rule did it")
    purged_at: datetime | None = Field(description="until when it stays in the trash")
    urls: CheckpointUrls

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "CheckpointView":
        removal = checkpoint.removal
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
            nonfinite=names_of_nonfinite(checkpoint.loss, checkpoint.metrics),
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
            merge=None if checkpoint.merge is None else MergeView.of_merge(checkpoint.merge),
            pin=None if checkpoint.pin is None else PinView(**asdict(checkpoint.pin)),
            slot=checkpoint.slot,
            expires_at=checkpoint.expires_at,
            thinned_at=checkpoint.thinned_at,
            nonfinite_tensors=checkpoint.nonfinite_tensors,
            deleted_at=None if removal is None else removal.at,
            deleted_by=None if removal is None else removal.by,
            deleted_reason=None if removal is None else removal.reason,
            purged_at=None if removal is None else removal.purge_at,
            urls=_urls(checkpoint),
        )


class CheckpointPage(BaseModel):
    items: list[CheckpointView]
    next: str | None = Field(description="the cursor of the next page")

    @classmethod
    def of(cls, checkpoints: Iterable[Checkpoint], cursor: str | None) -> "CheckpointPage":
        return cls(items=[CheckpointView.of(checkpoint) for checkpoint in checkpoints], next=cursor)


def names_of_nonfinite(loss: float | None, metrics: Mapping[str, float]) -> list[str]:
    numbers = {"loss": loss, **{f"metric.{name}": value for name, value in metrics.items()}}
    return [name for name, number in numbers.items() if number is not None and not math.isfinite(number)]


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
        original=_original_url(checkpoint) if checkpoint.original and checkpoint.thinned_at is None else None,
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
