"""The check that the server may do with an object store what it has to."""

import obstore
from obstore.store import ObjectStore

from ..errors import StoreError
from .remote_errors import translated

_DATA = b"Stateroom checks whether it can write, read and delete objects here.\n"


def check_access(objects: ObjectStore, key: str) -> None:
    """Write an object, read it, and delete it. Raises StoreError, which says what failed and why."""
    with translated("writing objects"):
        obstore.put(objects, key, _DATA, use_multipart=False)
    try:
        with translated("reading objects"):
            data = bytes(obstore.get(objects, key).bytes())
    finally:
        with translated("deleting objects"):
            obstore.delete(objects, key)
    if data != _DATA:
        raise StoreError("reading objects failed: the store gave other bytes than those that were written")
