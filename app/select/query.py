"""A request's selection from a checkpoint, as a value.

``StateDictQuery`` holds the fields of the state_dict routes. Its constructor checks the fields that need no
checkpoint: the device, the dtype and the format. Patterns are checked where they are compiled.
"""

import json
import re
from dataclasses import asdict, dataclass
from typing import Literal

from ..errors import SelectionError
from .near import near

_INDEXED_DEVICES = ("cuda", "xpu", "hpu", "npu", "mtia", "xla", "maia", "privateuseone")
_SINGLE_DEVICES = ("cpu", "meta", "mps")
_DTYPES = {
    "float32": "float32", "float": "float32", "fp32": "float32", "f32": "float32",
    "float16": "float16", "half": "float16", "fp16": "float16", "f16": "float16",
    "bfloat16": "bfloat16", "bf16": "bfloat16",
}  # fmt: skip
CAST_TO = frozenset(_DTYPES.values())
"""Dtypes that the server can cast to, by torch's names."""

FORMATS = ("pt", "safetensors")
_DEVICE = re.compile(r"([a-z]+)(?::(0|[1-9][0-9]{0,2}))?")
MAX_DEVICE_INDEX = 127
"""torch keeps a device's index in a signed byte."""


@dataclass(frozen=True, slots=True)
class StateDictQuery:
    """A selection and the format to write it in. The defaults ask for the default component, as it was saved.

    ``strip_prefix`` are removed in turn; ``rename`` is pairs of old and new; ``device`` is a location as torch writes
    it, None for as saved; ``dtype`` is torch's name of the dtype that floating tensors are cast to, except tensors
    whose new names match ``dtype_exclude``.
    """

    component: str | None = None
    strip_prefix: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    add_prefix: str | None = None
    device: str | None = None
    dtype: str | None = None
    dtype_exclude: tuple[str, ...] = ()
    format: Literal["pt", "safetensors"] = "pt"

    def __post_init__(self) -> None:
        if self.device is not None:
            object.__setattr__(self, "device", parse_device(self.device))
        if self.dtype is not None:
            object.__setattr__(self, "dtype", parse_dtype(self.dtype))
        elif self.dtype_exclude:
            raise SelectionError(
                "dtype_exclude needs dtype, because it names the keys that are not cast", code="unknown-dtype"
            )
        if self.format not in FORMATS:
            raise SelectionError(
                f"there is no format {self.format!r}; use {' or '.join(FORMATS)}", code="unknown-format", near=FORMATS
            )
        if self.format == "safetensors" and self.device is not None:
            raise SelectionError(
                "a safetensors file stores no device: leave out device, and choose one when you load the file",
                code="device-and-safetensors",
            )

    @property
    def renames(self) -> bool:
        """Tell whether keys may get new names."""
        return bool(any(self.strip_prefix) or self.rename or self.add_prefix)

    def normalised(self) -> str:
        """Canonical text, without differences that cannot change the answer."""
        fields = asdict(self)
        prefixes = [prefix for prefix in self.strip_prefix if prefix]
        # no prefix as None and one as text, as in plans kept since before there could be several
        fields["strip_prefix"] = prefixes if len(prefixes) > 1 else (prefixes or (None,))[0]
        fields["include"] = sorted(set(self.include))
        fields["exclude"] = sorted(set(self.exclude))
        fields["dtype_exclude"] = sorted(set(self.dtype_exclude))
        kept = {name: value for name, value in fields.items() if value or (name == "component" and value is not None)}
        return json.dumps(kept, sort_keys=True, separators=(",", ":"))


def parse_rename(text: str) -> tuple[str, str]:
    """Split ``OLD=>NEW`` at the first ``=>``. Raises SelectionError ``bad-rename``."""
    old, arrow, new = text.partition("=>")
    if not arrow:
        raise SelectionError(f"rename={text!r} has no '=>'; write rename=OLD=>NEW", code="bad-rename")
    return old, new


def parse_dtype(text: str) -> str:
    """Torch's name of a dtype that tensors can be cast to; ``torch.bfloat16`` and ``bf16`` are ``bfloat16``.

    Raises SelectionError ``unknown-dtype``.
    """
    name = text.removeprefix("torch.")
    if name not in _DTYPES:
        known = ", ".join(dict.fromkeys(_DTYPES.values()))
        raise SelectionError(
            f"cannot cast to dtype {text[:100]!r}; use {known}", code="unknown-dtype", near=near(name, _DTYPES)
        )
    return _DTYPES[name]


def parse_device(text: str) -> str:
    """The location that torch writes for a device: ``cuda:0`` stays; ``cpu:0`` is ``cpu``, the only one.

    Raises SelectionError ``unknown-device``.
    """
    found = _DEVICE.fullmatch(text)
    kind, index = found.groups() if found else (text, None)
    if kind in _SINGLE_DEVICES and index in {None, "0"}:
        return kind
    if kind in _INDEXED_DEVICES and (index is None or int(index) <= MAX_DEVICE_INDEX):
        return text
    close = near(text.partition(":")[0], _SINGLE_DEVICES + _INDEXED_DEVICES)
    known = ", ".join(_SINGLE_DEVICES + tuple(f"{device}[:N]" for device in _INDEXED_DEVICES))
    raise SelectionError(f"{text!r} is not a device of torch; use {known}", code="unknown-device", near=close)
