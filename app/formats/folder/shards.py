"""Shards: several files that hold one state_dict between them, by an index file or by their numbered names.

Reference: ``split_torch_state_dict_into_shards`` in huggingface_hub; ``save_pretrained`` in transformers.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from ...errors import BadFolder
from ...values.json_text import read_json
from ...values.source import ByteSource
from ...values.work import Work
from ..part import Part

INDEX = ".index.json"

MAX_INDEX = 100_000_000
"""Bytes of an index: as many as a safetensors header may have."""

_NUMBERED = re.compile(r"(.+)-([0-9]{5,8})-of-([0-9]{5,8})(\.[a-z]+)")


class Shards:
    """The shards of a folder. ``head_of`` maps each shard to the name of the file that would hold it all;
    ``keys_of`` are the keys that an index expects in a shard.
    """

    def __init__(self) -> None:
        self.head_of: dict[str, str] = {}
        self.keys_of: dict[str, list[str]] = {}


def find_shards(files: Mapping[str, Part], work: Work) -> Shards:
    """Find all shards among ``files``. Raises BadFolder if one is missing, or if an index cannot be right."""
    shards = Shards()
    for path, part in files.items():
        if path.endswith(INDEX):
            _read_index(path, part, files, shards, work)
    numbered: dict[tuple[str, int, str], set[int]] = {}
    for path in files:
        if (match := _NUMBERED.fullmatch(path)) is not None:
            stem, number, count, suffix = match[1], int(match[2]), int(match[3]), match[4]
            numbered.setdefault((stem, count, suffix), set()).add(number)
            shards.head_of.setdefault(path, stem + suffix)
    for (stem, count, suffix), numbers in numbered.items():
        if (beyond := next((n for n in sorted(numbers) if not 1 <= n <= count), None)) is not None:
            raise BadFolder(
                f"the folder has the shard {stem}-{beyond:05}-of-{count:05}{suffix}, but the {count} shards are "
                "numbered from 1: rename or remove it",
                rule="shard-missing",
                where=f"{stem}{suffix}",
            )
        if len(numbers) != count:
            example = next(n for n in range(1, count + 1) if n not in numbers)
            raise BadFolder(
                f"of the {count} shards {stem}-*-of-{count:05}{suffix}, {len(numbers)} are in the folder, and number "
                f"{example} is missing: upload all shards together",
                rule="shard-missing",
                where=f"{stem}{suffix}",
            )
    return shards


def _read_index(path: str, part: Part, files: Collection[str], shards: Shards, work: Work) -> None:
    folder = path[: path.rfind("/") + 1]
    head = path[: -len(INDEX)]
    for key, name in _weight_map(path, part, work).items():
        if type(name) is not str:
            raise _refused(path, f"it gives {key[:200]!r} no file name")
        shard = folder + name
        if shard not in files:
            raise _refused(
                path, f"it names the file {name[:200]!r}, which is not in the folder: upload all shards together"
            )
        if shards.head_of.setdefault(shard, head) != head:
            raise _refused(path, f"the file {name[:200]!r} is in another index too")
        shards.keys_of.setdefault(shard, []).append(key)


def _weight_map(path: str, part: Part, work: Work) -> Mapping[str, Any]:
    if len(part) > MAX_INDEX:
        raise _refused(path, f"it has {len(part):,} bytes; at most {MAX_INDEX:,} are allowed")
    work.allow(len(part))
    work.spend(len(part))
    index = json_of(part)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise _refused(path, 'it is not a JSON object with a "weight_map" from keys to file names')
    return weight_map


def json_of(data: ByteSource) -> Any:
    """Parse a file as JSON; None for one that is not JSON."""
    try:
        return read_json(bytes(data[: len(data)]))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None


def _refused(path: str, why: str) -> BadFolder:
    return BadFolder(f"the index of shards {path[:200]!r} is wrong: {why}", rule="shard-index", where=path[:200])
