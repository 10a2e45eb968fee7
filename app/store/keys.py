"""The keys of packs in a store: the only module that builds them.

<root>/
├── checks/                     an object store only: an object that is written, read and deleted to check the access
└── packs/
    └── ab/                     the first two characters of the names below, so that no folder grows without bound
        ├── abcdef.pack         a finished pack that is one file, immutable
        ├── abcdef.part         such a pack, still being written; renamed to .pack when it is whole
        └── ab01.../            an area: the objects that one upload brings
            ├── 0-3             an object, immutable: the upload's blocks 0, 1 and 2
            └── ab01...cd.list  a finished pack: which parts of which objects it consists of

A folder has packs of both kinds; an object store has only areas, one for each pack. A pack that is listed in the area
of another name begins with the area's name: see ``joined_name``. All names are made of the characters a to z and 0 to
9, so they need no escaping in a file system, a URL or a log.
"""

import re
import secrets

PACKS = "packs"

_NAME = re.compile(r"[a-z0-9]{3,64}", re.ASCII)
_NEW_NAME = re.compile(r"[0-9a-f]{32}", re.ASCII)
_OBJECT = re.compile(r"[0-9]{1,20}-[0-9]{1,20}|manifest-[0-9a-f]{32}", re.ASCII)

AREA_LENGTH = 32
"""Length of a new name, which an area has."""

JOINED_LENGTH = 2 * AREA_LENGTH
"""Length of the name of a pack that is listed in the area of another name."""


def check_key(name: str) -> str:
    """The key of an object that a check of the access writes and deletes. No other check uses ``name``."""
    return f"checks/{checked(name)}"


def new_name() -> str:
    """A new unique name: 128 random bits in hex."""
    return secrets.token_hex(AREA_LENGTH // 2)


def is_new_name(name: str) -> bool:
    """Tell whether ``name`` has the form that ``new_name`` gives. Other files beside uploads are not the server's."""
    return _NEW_NAME.fullmatch(name) is not None


def joined_name(area: str) -> str:
    """A new name for a pack in ``area``, so that two commits of one upload never write the same list."""
    return checked(area) + new_name()


def area_of(name: str) -> str:
    """The area of the pack ``name``."""
    return checked(name)[:AREA_LENGTH] if is_joined(name) else checked(name)


def is_joined(name: str) -> bool:
    """Tell whether ``joined_name`` gave the name."""
    return len(name) == JOINED_LENGTH


def checked(name: str) -> str:
    """Return ``name``. Raises ValueError if it is not a pack name: users never choose pack names."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"not a pack name: {name!r}")
    return name


def checked_object(name: str) -> str:
    """Return ``name``. Raises ValueError if it is not the name of an object."""
    if _OBJECT.fullmatch(name) is None:
        raise ValueError(f"not the name of an object: {name!r}")
    return name


def object_name(numbers: range) -> str:
    """The name of the object with the blocks ``numbers``."""
    return f"{numbers.start}-{numbers.stop}"


def manifest_name() -> str:
    """A new name for the object with a manifest."""
    return f"manifest-{new_name()}"


def pack_key(name: str) -> str:
    """The key of a pack that is one file, relative to the root."""
    return f"{PACKS}/{checked(name)[:2]}/{name}.pack"


def part_key(name: str) -> str:
    """The key of such a pack while it is being written, in the same folder as the finished one."""
    return f"{PACKS}/{checked(name)[:2]}/{name}.part"


def area_key(area: str) -> str:
    """The key of an area, which is the beginning of the keys of everything in it."""
    return f"{PACKS}/{checked(area)[:2]}/{area}"


def object_key(area: str, name: str) -> str:
    return f"{area_key(area)}/{checked_object(name)}"


def list_key(name: str) -> str:
    """The key of the list of the pack ``name``."""
    return f"{area_key(area_of(name))}/{name}.list"


def name_in(file: str) -> tuple[str, bool] | None:
    """The pack's name in a file name, and whether the file is the finished pack; None for a file that is not ours."""
    name, _, kind = file.rpartition(".")
    return (name, kind == "pack") if kind in {"pack", "part"} and _NAME.fullmatch(name) else None


def is_area(folder: str) -> bool:
    """Tell whether a folder beside packs may be an area."""
    return _NAME.fullmatch(folder) is not None


def listed_in(area: str, file: str) -> str | None:
    """The pack whose list is the file ``file`` of ``area``; None for any other file."""
    name, _, kind = file.rpartition(".")
    return name if kind == "list" and _NAME.fullmatch(name) and area_of(name) == area else None


def is_in_area(area: str, file: str) -> bool:
    """Tell whether a file of the folder ``area`` is the server's."""
    name, _, kind = file.rpartition(".")
    if kind == "part":
        return is_new_name(name)
    return listed_in(area, file) is not None or _OBJECT.fullmatch(file) is not None
