"""Where a pack lies in a store: the one place that builds keys.

<root>/
└── packs/
    └── ab/                 the first two characters of the names below, so that no folder grows without bound
        ├── abcdef.pack     a finished pack, immutable
        └── abcdef.part     a pack still being written; renamed to .pack when it is whole

A name is made of the characters a to z and 0 to 9, so it needs no escaping in a file system, a URL or a log.
"""

import re
import secrets

PACKS = "packs"

_NAME = re.compile(r"[a-z0-9]{3,64}", re.ASCII)
_NEW_NAME = re.compile(r"[0-9a-f]{32}", re.ASCII)


def new_name() -> str:
    """A name nobody has used: 128 random bits in hex."""
    return secrets.token_hex(16)


def is_new_name(name: str) -> bool:
    """Whether ``new_name`` may have made it: what else lies beside uploads is somebody else's."""
    return _NEW_NAME.fullmatch(name) is not None


def checked(name: str) -> str:
    """``name`` itself; ValueError when it is no pack name, for names are ours and never a user's."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"not a pack name: {name!r}")
    return name


def pack_key(name: str) -> str:
    """The finished pack's key, relative to the root."""
    return f"{PACKS}/{checked(name)[:2]}/{name}.pack"


def part_key(name: str) -> str:
    """The key of a pack still being written, in the same folder as the finished one."""
    return f"{PACKS}/{checked(name)[:2]}/{name}.part"


def name_in(file: str) -> tuple[str, bool] | None:
    """The pack that a file is called after, and whether it is the finished one; None where it is no file of ours."""
    name, _, kind = file.rpartition(".")
    return (name, kind == "pack") if kind in {"pack", "part"} and _NAME.fullmatch(name) else None
