"""All byte storage: packs behind one interface, the spool that uploads arrive in, and the hashing of both."""

from .local import LocalPackStore
from .pack_store import PackStore, StoredPack
from .spool import Spool, SpoolFile

__all__ = ["LocalPackStore", "PackStore", "Spool", "SpoolFile", "StoredPack"]
