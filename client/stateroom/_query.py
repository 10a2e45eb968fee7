"""Conversion of method arguments to URL paths, query parameters and JSON bodies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Union
from urllib.parse import quote

from ._checkpoint import Checkpoint, SpooledCheckpoint
from ._errors import InvalidRequest
from ._types import Format, Params, Patterns, Prefixes, Rename, Resize

Ref = Union[Checkpoint, int, str]

MAX_QUERY = 60_000
"""Longest query string of metrics and tags, in characters: httpx sends at most 65,536."""

PLAIN_DEVICE = re.compile(r"(cpu|meta|mps|(cuda|xpu)(:\d+)?)\Z")


@dataclass(frozen=True)
class Selection:
    """A selection of keys, their new names, dtype and format: the fields of the server's query, in its order.

    ``dtype`` is a torch.dtype, or its name, that the server can cast to. ``resize`` is that of a warm start, whose
    ``dtype`` may also be ``"target"``.
    """

    component: str | None = None
    strip_prefix: Prefixes = None
    include: Patterns = ()
    exclude: Patterns = ()
    rename: Rename = ()
    add_prefix: str | None = None
    dtype: Any = None
    dtype_exclude: Patterns = ()
    format: Format = "pt"
    resize: Resize = "none"

    def params(self) -> Params:
        return [
            *optional(component=self.component),
            *(("strip_prefix", prefix) for prefix in self.prefixes),
            *(("include", pattern) for pattern in listed(self.include)),
            *(("exclude", pattern) for pattern in listed(self.exclude)),
            *(("rename", f"{_old(old)}=>{new}") for old, new in self._renames()),
            *optional(add_prefix=self.add_prefix, dtype=_dtype_name(self.dtype)),
            *(("dtype_exclude", pattern) for pattern in listed(self.dtype_exclude)),
            *optional(format=None if self.format == "pt" else self.format),
        ]

    def body(self) -> dict[str, Any]:
        """Return the selection as a JSON body."""
        texts = optional(
            component=self.component,
            add_prefix=self.add_prefix,
            dtype=_dtype_name(self.dtype),
        )
        prefixes = self.prefixes
        return {
            **dict(texts),
            **({"strip_prefix": prefixes if len(prefixes) > 1 else prefixes[0]} if prefixes else {}),
            "include": listed(self.include),
            "exclude": listed(self.exclude),
            "rename": [[old, new] for old, new in self._renames()],
            "dtype_exclude": listed(self.dtype_exclude),
            "format": self.format,
            **({} if self.resize == "none" else {"resize": self.resize}),
        }

    @property
    def prefixes(self) -> list[str]:
        return [] if self.strip_prefix is None else listed(self.strip_prefix)

    @property
    def renames(self) -> bool:
        """Return whether the selection may rename keys."""
        return bool(self.prefixes or self.add_prefix or self.rename)

    def _renames(self) -> Iterable[tuple[str, str]]:
        return self.rename.items() if isinstance(self.rename, Mapping) else self.rename


@dataclass(frozen=True)
class TensorPart:
    """One tensor, or a part of it: ``rows`` along the first dimension and, of these, the ``shard`` along ``dim``."""

    key: str
    component: str | None = None
    rows: slice | None = None
    dim: int | None = None
    shard: tuple[int, int] | None = None
    dtype: Any = None

    @property
    def path(self) -> str:
        """The path below a checkpoint's. Raises InvalidRequest for a key that no path can name."""
        if self.key in {"", ".", ".."}:
            raise InvalidRequest(f"a tensor with the key {self.key!r} has no URL; load it with state_dict()")
        return f"tensors/{quote(self.key, safe='')}"

    def params(self) -> Params:
        return optional(
            component=self.component,
            rows=None if self.rows is None else _rows_text(self.rows),
            dim=None if self.dim is None else integer_text("dim", self.dim),
            shard=None if self.shard is None else _shard_text(self.shard),
            dtype=_dtype_name(self.dtype),
        )


def _rows_text(rows: slice) -> str:
    if not isinstance(rows, slice) or rows.step not in {None, 1}:
        raise InvalidRequest(f"rows={rows!r} is not a slice without a step; use slice(0, 10)")
    return ":".join("" if bound is None else integer_text("rows", bound) for bound in (rows.start, rows.stop))


def _shard_text(shard: tuple[int, int]) -> str:
    try:
        number, count = shard
    except (TypeError, ValueError):
        raise InvalidRequest(f"shard={shard!r} is not a number and a count; use (0, 8) for the first of 8") from None
    return f"{integer_text('shard', number)}/{integer_text('shard', count)}"


def model_path(name: str) -> str:
    """The path of the model ``namespace/name``."""
    parts = name.split("/")
    if len(parts) != 2 or any(part in {"", ".", ".."} for part in parts):
        raise InvalidRequest(f"{name!r} is not a valid model name; use namespace/name")
    return "/v1/models/" + "/".join(quote(part, safe="") for part in parts)


def ref_text(ref: Ref, model: str) -> str:
    """Return a ref as a path segment. A Checkpoint becomes its number, and must be one of this model's."""
    if isinstance(ref, Checkpoint):
        if isinstance(ref, SpooledCheckpoint):
            raise InvalidRequest(f"{ref} has no version yet: send it with client.send_spooled()")
        if ref.model != model:
            raise InvalidRequest(f"{ref} is not a checkpoint of {model}")
        ref = ref.version
    if isinstance(ref, bool) or not isinstance(ref, (int, str)):
        raise InvalidRequest(f"a ref must be a Checkpoint, an int or a str, not {type(ref).__name__}")
    text = str(ref)
    if text in {"", ".", ".."}:
        raise InvalidRequest(
            f"{text!r} is not a valid ref; use 12, latest, best, min:NAME, max:NAME, epoch:N, step:N or an alias"
        )
    return quote(text, safe=":")


def origin_text(field: str, ref: Ref, model: str) -> str:
    """Return the name ``namespace/name@N`` of a checkpoint of any model; a version alone is one of ``model``."""
    if isinstance(ref, Checkpoint) and not isinstance(ref, SpooledCheckpoint):
        return f"{ref.model}@{ref.version}"
    if isinstance(ref, str) and "@" in ref:
        return ref
    try:
        return f"{model}@{version_in(ref, model)}"
    except InvalidRequest as error:
        raise InvalidRequest(
            f"{field}={ref!r}: give a Checkpoint, a version number or 'namespace/name@N' ({error.detail})"
        ) from None


def version_in(ref: Ref, model: str) -> int:
    """Return the version that a ref names forever: a Checkpoint of ``model``, 12, "12" or "v12"."""
    text = ref_text(ref, model)
    number = text[1:] if text[:1] == "v" else text
    if not (number.isascii() and number.isdigit()):
        raise InvalidRequest(f"{text!r} is not a version number: a ref that moves cannot be expected")
    return int(number)


def device_tag(map_location: Any) -> str | None:
    """Return the device to ask the server for: a plain tag or a torch.device, None for everything else."""
    tag = map_location if isinstance(map_location, str) else None
    if hasattr(map_location, "type") and hasattr(map_location, "index"):
        tag = str(map_location)
    return tag if tag is not None and PLAIN_DEVICE.match(tag) else None


def number_text(name: str, value: Any) -> str:
    """Return a number as text, also a 0-dim tensor or numpy's. Non-finite ones read ``nan``, ``inf`` and ``-inf``."""
    if hasattr(value, "detach"):  # a loss is often still attached to its autograd graph
        value = value.detach()
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidRequest(f"{name} must be a number, not {value!r}") from None
    return str(number)


def integer_text(name: str, value: Any) -> str:
    try:
        number = int(value)
        exact = number == value
    except (TypeError, ValueError, RuntimeError):
        exact = False
    if not exact:
        raise InvalidRequest(f"{name} must be an integer, not {value!r}")
    return str(number)


def upload_params(
    *,
    run: str | None,
    epoch: Any,
    step: Any,
    loss: Any,
    metrics: Mapping[str, Any] | None,
    tags: Mapping[str, str] | None,
    ttl: str | None = None,
    slot: str | None = None,
    scan: bool = False,
) -> Params:
    """Return an upload's query parameters. Raises InvalidRequest if they are too long for one request."""
    params = [
        *optional(
            run=run,
            epoch=None if epoch is None else integer_text("epoch", epoch),
            step=None if step is None else integer_text("step", step),
            loss=None if loss is None else number_text("loss", loss),
            ttl=ttl,
            slot=slot,
            scan="true" if scan else None,
        ),
        *((f"metric.{name}", number_text(name, value)) for name, value in (metrics or {}).items()),
        *((f"tag.{name}", str(value)) for name, value in (tags or {}).items()),
    ]
    length = sum(len(quote(name)) + len(quote(value)) + 2 for name, value in params)
    if length > MAX_QUERY:
        raise InvalidRequest(
            f"{len(metrics or {}):,} metrics and {len(tags or {}):,} tags take {length:,} characters of the URL, which "
            f"may have {MAX_QUERY:,}: save with fewer, and set the others with update(ref, metrics=..., tags=...); a "
            "checkpoint may have at most 1,000 metrics and 1,000 tags"
        )
    return params


def link_params(what: str, expires: int, map_location: Any, fields: Mapping[str, Any]) -> Params:
    """Return the query parameters of a link; ``fields`` are those of a Selection, and ``weights_only``."""
    unsafe = not fields["weights_only"]
    selection = Selection(**{name: value for name, value in fields.items() if name != "weights_only"})
    device = device_tag(map_location)
    if what not in {"state_dict", "file", "original"}:
        raise InvalidRequest(f"{what!r} has no URL; use 'state_dict', 'file' or 'original'")
    if what != "state_dict" and selection.params():
        raise InvalidRequest(f"{what!r} takes no selection; use 'state_dict' to select keys")
    if map_location is not None and (device is None or what == "original"):
        raise InvalidRequest(
            f"map_location={map_location!r}: url() takes a device, and only for 'state_dict' and 'file'"
        )
    if unsafe and what != "file":
        raise InvalidRequest(f"weights_only=False is only for 'file'; {what!r} does not need it")
    unsafe_text = "false" if unsafe else None
    return [
        *selection.params(),
        *optional(device=device, weights_only=unsafe_text, expires=integer_text("expires", expires)),
    ]


def changes(metrics: Mapping[str, Any] | None, tags: Mapping[str, str | None] | None) -> dict[str, Any]:
    """Return the JSON body that changes metrics and tags; None removes one. Numbers are sent as text, because JSON
    cannot express non-finite ones.
    """
    return {
        "metrics": {
            name: None if value is None else number_text(f"metric {name}", value)
            for name, value in (metrics or {}).items()
        },
        "tags": dict(tags or {}),
    }


def optional(**fields: str | None) -> Params:
    """Return the fields that are not None. An empty one is kept: the component of a flat file is ``""``."""
    return [(name, value) for name, value in fields.items() if value is not None]


def listed(patterns: Patterns) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)


def _dtype_name(dtype: Any) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _old(old: str) -> str:
    if "=>" in old:
        raise InvalidRequest(
            f"the old name of a rename must not contain '=>', which separates it from the new name: {old!r}"
        )
    return old
