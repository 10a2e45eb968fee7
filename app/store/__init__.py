"""All byte storage: packs behind one interface, the files that uploads arrive in, and the hashing of both."""

from .holder import Holder
from .local import LocalPackStore
from .open_file import OpenFile
from .pack_store import PackStore, StoredPack
from .partial import PartialFile, Partials
from .room import Room
from .spool import Spool, SpoolFile

__all__ = [
    "Holder",
    "LocalPackStore",
    "OpenFile",
    "PackStore",
    "PartialFile",
    "Partials",
    "Room",
    "Spool",
    "SpoolFile",
    "StoredPack",
]
