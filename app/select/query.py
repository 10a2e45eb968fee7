"""What a request asks of a checkpoint, as a value.

``StateDictQuery`` holds the fields of the state_dict routes. Making one checks what can be checked without a
checkpoint: the device and the format. Patterns are checked where they are compiled.
"""

import json
import re
from dataclasses import asdict, dataclass
from typing import Literal

from ..errors import SelectionError
from .near import near

_INDEXED_DEVICES = ("cuda", "xpu", "hpu", "npu", "mtia", "xla", "maia", "privateuseone")
_SINGLE_DEVICES = ("cpu", "meta", "mps")
_DEVICE = re.compile(r"([a-z]+)(?::(0|[1-9][0-9]{0,2}))?")
MAX_DEVICE_INDEX = 127
"""torch keeps a device's index in a signed byte."""


@dataclass(frozen=True, slots=True)
class StateDictQuery:
    """What is picked and how it is written. The defaults ask for the default component, as it was saved.

    ``rename`` is pairs of old and new; ``device`` is a location as torch writes it, None for as saved.
    """

    component: str | None = None
    strip_prefix: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    add_prefix: str | None = None
    device: str | None = None
    format: Literal["pt"] = "pt"

    def __post_init__(self) -> None:
        if self.device is not None:
            object.__setattr__(self, "device", parse_device(self.device))
        if self.format != "pt":
            raise SelectionError(f"format {self.format!r} is not served; pt is", code="unknown-format", near=("pt",))

    @property
    def renames(self) -> bool:
        """Whether keys may come out under other names."""
        return bool(self.strip_prefix or self.rename or self.add_prefix)

    def normalised(self) -> str:
        """Canonical text: equal for queries that differ only in what cannot change the answer."""
        fields = asdict(self)
        fields["include"] = sorted(set(self.include))
        fields["exclude"] = sorted(set(self.exclude))
        kept = {name: value for name, value in fields.items() if value or (name == "component" and value is not None)}
        return json.dumps(kept, sort_keys=True, separators=(",", ":"))


def parse_rename(text: str) -> tuple[str, str]:
    """``OLD=>NEW`` as a pair; the first ``=>`` splits. Raises SelectionError ``bad-rename``."""
    old, arrow, new = text.partition("=>")
    if not arrow:
        raise SelectionError(f"rename={text!r} has no '=>'; it is written rename=OLD=>NEW", code="bad-rename")
    return old, new


def parse_device(text: str) -> str:
    """The location torch writes for a device: ``cuda:0`` stays, ``cpu:0`` is ``cpu``, which has only one.

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
    raise SelectionError(
        f"{text!r} is no device that torch knows; known are {known}", code="unknown-device", near=close
    )
