"""The keys of packs in a store: the only module that builds them.

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
    """A new unique name: 128 random bits in hex."""
    return secrets.token_hex(16)


def is_new_name(name: str) -> bool:
    """Tell whether ``name`` has the form that ``new_name`` gives. Other files beside uploads are not the server's."""
    return _NEW_NAME.fullmatch(name) is not None


def checked(name: str) -> str:
    """Return ``name``. Raises ValueError if it is not a pack name: users never choose pack names."""
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
    """The pack's name in a file name, and whether the file is the finished pack; None for a file that is not ours."""
    name, _, kind = file.rpartition(".")
    return (name, kind == "pack") if kind in {"pack", "part"} and _NAME.fullmatch(name) else None
