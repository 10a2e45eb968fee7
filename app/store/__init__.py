"""All byte storage: packs behind one interface, the files that uploads arrive in, and the hashing of both."""

from .local import LocalPackStore
from .open_file import OpenFile
from .pack_store import PackStore, StoredPack
from .room import Room
from .spool import SparseFile, Spool, SpoolFile

__all__ = [
    "LocalPackStore",
    "OpenFile",
    "PackStore",
    "Room",
    "SparseFile",
    "Spool",
    "SpoolFile",
    "StoredPack",
]
