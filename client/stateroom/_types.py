"""Types in public signatures that several modules share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Union

What = Literal["state_dict", "file", "original"]
Patterns = Union[str, Sequence[str]]
Prefixes = Union[str, Sequence[str], None]
Rename = Union[Mapping[str, str], Sequence["tuple[str, str]"]]
Params = list[tuple[str, str]]
Format = Literal["pt", "safetensors"]
Resize = Literal["none", "slice"]
