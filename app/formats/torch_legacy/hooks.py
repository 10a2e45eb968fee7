"""Persistent ids of torch's format before 1.6: classes, storages, and parts of storages.

Reference: ``_legacy_load`` and ``_legacy_save`` in torch/serialization.py.
"""

from ...errors import HostileCheckpoint
from ...values.work import Work
from ..pickle.machine import InertHooks
from ..pickle.nodes import Global, Node, StorageRef, StorageView
from ..torch_tensors import TorchHooks


class PlainHooks(InertHooks):
    """Hooks for the pickles around the object: plain values only. A torch.load without ``weights_only`` runs these
    pickles too, and names in them would be listed nowhere.
    """

    def persistent(self, pid: Node) -> Node:
        raise _not_plain("a storage")

    def named(self, name: Global, near: str | None) -> None:
        raise _not_plain(name.full_name[:200])


class LegacyHooks(TorchHooks):
    """Hooks for the object's pickle. ``views`` are the named parts of storages, by their own keys."""

    def __init__(self, work: Work | None = None) -> None:
        super().__init__(work)
        self.views: dict[str, StorageView] = {}

    def persistent(self, pid: Node) -> Node:
        """Return the class that ``("module", class, file, source)`` names, or the storage, or part of a storage, that
        ``("storage", storage_class, key, location, numel, view)`` names.
        """
        if type(pid) is tuple and len(pid) == 4 and pid[0] in ("module", b"module"):
            if type(pid[1]) is not Global:
                raise _refused("a module without a class")
            return pid[1]
        if type(pid) is not tuple or len(pid) != 6:
            raise _refused("a persistent id that is not a storage")
        storage = super().persistent(pid[:5])
        return storage if pid[5] is None else self._view(storage, pid)

    def _view(self, storage: StorageRef, pid: tuple[Node, ...]) -> StorageView:
        view = pid[5]
        if type(view) is not tuple or len(view) != 3 or type(view[0]) is not str:
            raise _refused("a part of a storage that is not (key, offset, size)")
        key, offset, numel = view
        if storage.storage_class is not pid[1]:
            raise _refused("a part of a storage with another class")
        if type(offset) is not int or type(numel) is not int or not 0 <= offset <= offset + numel <= storage.numel:
            raise _refused("a part of a storage that extends beyond it")
        known = self.views.setdefault(key, StorageView(storage, offset, numel))
        if (known.storage, known.offset, known.numel) != (storage, offset, numel):
            raise _refused("two parts of storages with the same key")
        return known


def _not_plain(what: str) -> HostileCheckpoint:
    detail = f"the file is damaged or forged: a pickle beside the object names {what}"
    return HostileCheckpoint(detail, rule="plain-values")


def _refused(what: str) -> HostileCheckpoint:
    return HostileCheckpoint(f"the checkpoint is damaged or forged: it names {what}", rule="persistent-id")
