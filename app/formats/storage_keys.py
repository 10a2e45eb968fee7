"""Keys of storages from many files, each of which has keys of its own."""

from ..values.work import Work
from .pickle.nodes import Node, StorageRef, TensorRef
from .tree import refs_in


def with_keys_of_its_own(number: int, root: Node, work: Work) -> Node:
    """Give the storages of a file's tree keys that no other file of a folder, or item of a file, has."""
    renamed: set[int] = set()
    refs = refs_in(root)
    work.spend(len(refs))
    for ref in refs:
        storage = ref.storage if isinstance(ref, TensorRef) else ref
        if isinstance(storage, StorageRef) and id(storage) not in renamed:
            renamed.add(id(storage))
            storage.key = storage_key(number, storage.key)
    return root


def storage_key(number: int, key: str) -> str:
    """Return the key among all storages of a storage of file ``number``."""
    return f"{number}/{key}"
