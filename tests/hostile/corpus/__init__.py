"""Files made to harm their readers, one module for each class. Nothing here is ever loaded."""

from collections.abc import Callable, Mapping

from tests.hostile.corpus import (
    cut,
    folders,
    gadgets,
    legacy_files,
    pickle_bombs,
    pickle_literals,
    pickle_opcodes,
    pickle_work,
    polyglots,
    safetensors_files,
    scanners,
    tensors,
    torchscript_files,
    words,
    zip_contents,
    zip_ends,
    zip_entries,
    zip_layout,
    zip_names,
)
from tests.hostile.corpus.base import Files


def _distributed() -> Files:
    """To import torch.distributed takes half a second, in each process that reads a class: only this class needs it."""
    from tests.hostile.corpus import distributed

    return distributed.files()


CLASSES: Mapping[str, Callable[[], Files]] = {
    "zip: ends": zip_ends.files,
    "zip: entries": zip_entries.files,
    "zip: names": zip_names.files,
    "zip: layout": zip_layout.files,
    "zip: contents": zip_contents.files,
    "pickle: opcodes": pickle_opcodes.files,
    "pickle: literals": pickle_literals.files,
    "pickle: bombs": pickle_bombs.files,
    "pickle: work": pickle_work.files,
    "pickle: gadgets": gadgets.files,
    "scanners": scanners.files,
    "tensors and storages": tensors.files,
    "legacy": legacy_files.files,
    "safetensors": safetensors_files.files,
    "torchscript": torchscript_files.files,
    "words and numbers": words.files,
    "polyglots": polyglots.files,
    "folders": folders.files,
    "distributed": _distributed,
    "cut and flipped": cut.files,
}
