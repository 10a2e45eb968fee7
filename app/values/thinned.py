"""Thinning: what a checkpoint loses when its optimizers' bytes are removed. Pure."""

from .digest import Digest
from .manifest import Manifest


def optimizer_blobs(manifest: Manifest) -> dict[Digest, int]:
    """The blobs that only optimizers' tensors use, with their lengths: thinning removes them."""
    optimizers = {number for number, one in enumerate(manifest.components) if one.kind == "optimizer"}
    if not optimizers:
        return {}
    of_optimizers, of_others = set[int](), set[int]()
    for tensor in manifest.tensors:
        if tensor.storage is not None:
            used = of_optimizers if tensor.component in optimizers else of_others
            used.update(manifest.stored_in(tensor.storage))
    only = of_optimizers - of_others
    found = {
        storage.digest: storage.span.length
        for number, storage in enumerate(manifest.storages)
        if number in only and storage.digest is not None
    }
    for number, storage in enumerate(manifest.storages):
        if number not in only and storage.digest is not None:
            found.pop(storage.digest, None)
    return found
