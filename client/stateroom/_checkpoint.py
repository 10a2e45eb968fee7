"""Checkpoints and models as the server describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from ._errors import InvalidRequest, understood
from ._files import FileInfo
from ._html import html_table
from ._lineage import Lineage, Merge, merge_of
from ._parsing import kind_of, time_of
from ._printable import printable
from ._types import Format, Patterns, Prefixes, Rename, What


class Source(Protocol):
    """The client that a checkpoint came from."""

    def link(
        self, checkpoint: Checkpoint, what: What, expires: int, map_location: Any, fields: Mapping[str, Any]
    ) -> str: ...

    def lineage(self, checkpoint: Checkpoint) -> Lineage: ...

    def files(self, checkpoint: Checkpoint) -> list[FileInfo]: ...

    def sha256(self, checkpoint: Checkpoint) -> str: ...


@dataclass(frozen=True)
class Component:
    """A state_dict inside a checkpoint. ``kind`` is ``state_dict`` or ``optimizer``; ``keys`` is the number of its keys
    (an optimizer's: its tensors), and ``bytes`` counts each storage once. A flat file is the component ``""``.
    """

    name: str
    kind: str
    keys: int
    bytes: int


@dataclass(frozen=True)
class ModelSummary:
    """A model in a listing: its number of checkpoints, and the meaning of its ref ``best``."""

    name: str
    best: str
    checkpoints: int
    created_at: datetime


@dataclass(frozen=True)
class Pin:
    """A mark that keeps a checkpoint from removal. ``by`` is the token that pinned it, None without tokens."""

    reason: str | None
    at: datetime
    by: str | None


@dataclass(frozen=True)
class Checkpoint:
    """A named immutable upload. ``str()`` of it reads ``vision/resnet50@12``.

    ``bytes`` is its size and ``new_bytes`` the growth of the store; ``digest`` is that of the uploaded file, None
    if it was uploaded in parts. ``sha256`` is None until somebody calls ``compute_sha256``, unless the upload said it.
    A loss or metric that is not a finite number is None and named in ``nonfinite``.
    ``unsafe_globals`` are the names for which ``load`` needs ``weights_only=False``. ``aliases`` are the names that
    meant it when it was looked up. ``parent`` and ``warm_started_from`` are the names of the checkpoints that training
    went on from and whose tensors it began with; they may be gone. ``merge`` says what the server computed it of.
    ``pin`` keeps it from removal; the next save in its
    ``slot`` replaces it; at ``expires_at`` it goes to the trash by itself. At ``thinned_at`` its optimizers' bytes were
    removed. ``nonfinite_tensors`` have NaN or an infinity; None if no save with ``scan`` asked. In the trash,
    ``deleted_at`` and ``purged_at`` are since when, and until when at the latest; ``deleted_reason`` is ``deleted``, or
    the rule that did it: ``retention``, ``expired`` or ``replaced``.
    It is ``offline`` if the server was not reached, and this is what it said last.
    """

    model: str
    version: int
    run: str | None
    epoch: int | None
    step: int | None
    loss: float | None
    format: str
    bytes: int
    new_bytes: int
    digest: str | None
    sha256: str | None
    created_at: datetime
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()
    unsafe_globals: tuple[str, ...] = ()
    nonfinite: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    parent: str | None = None
    warm_started_from: str | None = None
    merge: Merge | None = None
    pin: Pin | None = None
    slot: str | None = None
    expires_at: datetime | None = None
    thinned_at: datetime | None = None
    nonfinite_tensors: int | None = None
    deleted_at: datetime | None = None
    deleted_by: str | None = None
    deleted_reason: str | None = None
    purged_at: datetime | None = None
    offline: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return printable(f"{self.model}@{self.version}")

    def __hash__(self) -> int:
        return hash((self.model, self.version))

    def _repr_html_(self) -> str:
        facts = ("run", "epoch", "step", "loss", "format", "aliases", "created_at", "nonfinite_tensors")
        rows: list[tuple[str, object]] = [(name, _fact(getattr(self, name))) for name in facts]
        rows += [(name, "not finite" if value is None else value) for name, value in self.metrics.items()]
        rows += [(f"tag {name}", value) for name, value in self.tags.items()]
        rows += [(f"component {each.name or repr('')}", f"{each.keys:,} keys") for each in self.components]
        return html_table(str(self), (), [row for row in rows if row[1] not in {None, ""}])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != _SOURCE}

    def url(
        self,
        what: What = "state_dict",
        *,
        expires: int = 3600,
        map_location: Any = None,
        component: str | None = None,
        include: Patterns = (),
        exclude: Patterns = (),
        strip_prefix: Prefixes = None,
        add_prefix: str | None = None,
        rename: Rename = (),
        dtype: Any = None,
        dtype_exclude: Patterns = (),
        format: Format = "pt",  # noqa: A002  the server's word for it
        weights_only: bool = True,
    ) -> str:
        """Return an absolute URL that downloads the checkpoint without a token, for torch.hub, curl or a browser.

        The URL is valid for ``expires`` seconds, at most 7 days, and no longer than the token that made it. ``what`` is
        ``state_dict``, one component with the selection of ``Model.download_state_dict``; ``file``, the whole
        checkpoint (with ``weights_only=False`` also one that only an unsafe load reads); or ``original``, the uploaded
        file. ``map_location`` is a device, for ``state_dict`` and ``file``. Raises the errors of that download. A
        copied or unpickled checkpoint makes no URLs.
        """
        source = self._found_by("a URL")
        fields = {
            "component": component,
            "include": include,
            "exclude": exclude,
            "strip_prefix": strip_prefix,
            "add_prefix": add_prefix,
            "rename": rename,
            "dtype": dtype,
            "dtype_exclude": dtype_exclude,
            "format": format,
            "weights_only": weights_only,
        }
        return source.link(self, what, expires, map_location, fields)

    def lineage(self) -> Lineage:
        """Return the checkpoints that it was trained from, and those trained from it, whether deleted since or not.

        A copied or unpickled checkpoint cannot ask its server.
        """
        return self._found_by("a lineage").lineage(self)

    def files(self) -> list[FileInfo]:
        """Return the files of a folder, or the one file that another checkpoint is downloaded as."""
        return self._found_by("a listing").files(self)

    def compute_sha256(self) -> str:
        """Return the SHA-256 of the uploaded file, in hex. The server reads the file for it once, and keeps it.

        Raises NotFound (``no-original``) for a checkpoint that was saved from memory, and Gone for a thinned one.
        """
        return self.sha256 if self.sha256 is not None else self._found_by("a SHA-256").sha256(self)

    def _found_by(self, what: str) -> Source:
        """Return the client that found the checkpoint. Raises InvalidRequest if there is none to ask for ``what``."""
        if isinstance(self, SpooledCheckpoint):
            raise InvalidRequest(f"{self} has no {what.split()[1]} yet, because it has not been sent to the server")
        source: Source | None = vars(self).get(_SOURCE)
        if source is None:
            raise InvalidRequest(
                f"{self} has no client to ask for {what}: get it from model.checkpoint({self.version})"
            )
        return source


@dataclass(frozen=True, eq=False)
class SpooledCheckpoint(Checkpoint):
    """The result of ``save`` if the server was away and the client has a ``spool_dir``.

    Its ``version`` is None, and its numbers are those that were given. ``path`` is the waiting file, which
    ``torch.load`` reads; ``why`` says what went wrong. It is not a ref, because it is stored only when the server is
    back.
    """

    path: Path = field(default_factory=Path)
    why: str = ""

    def __str__(self) -> str:
        return printable(f"{self.model} (waits in {self.path})")


def _fact(value: object) -> object:
    return ", ".join(value) if isinstance(value, tuple) else value


_SOURCE = "_source"
"""Attribute with the client of a checkpoint, which is not part of its value: neither compared nor copied."""


@understood("a model")
def model_of(data: Mapping[str, Any]) -> ModelSummary:
    """Parse the server's JSON."""
    return ModelSummary(data["model"], data["best"], data["checkpoints"], time_of(data["created_at"]))


@understood("a checkpoint")
def checkpoint_of(data: Mapping[str, Any], source: Source | None = None, *, offline: bool = False) -> Checkpoint:
    """Parse the server's JSON; fields that this client doesn't know yet are ignored. ``source`` is the client."""
    checkpoint = Checkpoint(
        model=kind_of(data["model"], str),
        version=kind_of(data["version"], int),
        run=data["run"],
        epoch=data["epoch"],
        step=data["step"],
        loss=data["loss"],
        format=data["format"],
        bytes=kind_of(data["bytes"], int),
        new_bytes=kind_of(data["new_bytes"], int),
        digest=data["digest"],
        sha256=data["sha256"],
        created_at=time_of(data["created_at"]),
        metrics=kind_of(data["metrics"], dict),
        tags=kind_of(data["tags"], dict),
        devices=tuple(data["devices"]),
        components=tuple(Component(c["name"], c["kind"], c["keys"], c["bytes"]) for c in data["components"]),
        unsafe_globals=tuple(data["unsafe_globals"]),
        nonfinite=tuple(data.get("nonfinite", ())),
        aliases=tuple(data.get("aliases", ())),
        parent=data.get("parent"),
        warm_started_from=data.get("warm_started_from"),
        merge=merge_of(data.get("merge")),
        pin=_pin_of(data.get("pin")),
        slot=data.get("slot"),
        nonfinite_tensors=data.get("nonfinite_tensors"),
        deleted_by=data.get("deleted_by"),
        deleted_reason=data.get("deleted_reason"),
        offline=offline,
        **{name: _time_or_none(data.get(name)) for name in ("expires_at", "thinned_at", "deleted_at", "purged_at")},
    )
    if source is not None:
        object.__setattr__(checkpoint, _SOURCE, source)
    return checkpoint


def _pin_of(data: Mapping[str, Any] | None) -> Pin | None:
    return None if data is None else Pin(data["reason"], time_of(data["at"]), data["by"])


def _time_or_none(text: str | None) -> datetime | None:
    return None if text is None else time_of(text)
