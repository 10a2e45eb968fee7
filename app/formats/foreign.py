"""Names for files that are not checkpoints: users upload neighbouring files, and the error names their type.

References: the signatures in file(1)'s magic database; torch/package, torch/export and torch/distributed/checkpoint.
"""

import re

from ..values.source import ByteSource

_HEAD = 4096
"""Bytes at the start of a file that are examined."""

_INSIDE = "unpack it and upload the checkpoint inside"
_DCP = "torch.distributed.checkpoint: upload the whole folder as one checkpoint, with all its files"
_MAGIC = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file that it stands for: run `git lfs pull` first"),
    (b"version https://hawser", "a git-lfs pointer, not the file that it stands for: run `git lfs pull` first"),
    (b"\x1f\x8b", f"a gzip file: {_INSIDE}"),
    (b"BZh", f"a bzip2 file: {_INSIDE}"),
    (b"\xfd7zXZ\0", f"an xz file: {_INSIDE}"),
    (b"\x28\xb5\x2f\xfd", f"a zstd file: {_INSIDE}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive: {_INSIDE}"),
    (b"Rar!", f"a rar archive: {_INSIDE}"),
    (b"GGUF", "a GGUF file of llama.cpp: upload the checkpoint that it was converted from"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as written by Keras: load it in Keras and save its weights with safetensors"),
    (b"\x93NUMPY", "a numpy array: save it with torch.save({'name': torch.from_numpy(array)}, path)"),
    (b"PK\5\6", "an empty zip file"),
    (b"PK\7\x08", "a zip file in several volumes"),
)
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s{0,100}(?:<!--[^>]{0,500}-->\s{0,100})?<(?:!doctype html|html|head)\b", re.IGNORECASE
)
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,100}<(?:\?xml|Error>)")
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,100}[{\[]\s{0,100}[\"{\[\]}0-9]")
_ONNX = re.compile(rb"\x08[\x03-\x20](?:\x12[\x01-\x40][ -~]|\x1a|\x3a)")
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\((?:dp|lp|d|l|i)|[}\])]q\0|c[a-zA-Z_][\w.]{0,100}\n[a-zA-Z_]")

_DEFINITELY = re.compile(rb"/\.data/extern_modules|/archive_format|serialized_exported_program\.json")
"""Names in archives of torch.package and torch.export, which may have checkpoints inside that are not theirs."""

_PACKAGE = re.compile(rb"/\.data/extern_modules")
_EXPORT = re.compile(rb"/archive_format|serialized_exported_program\.json|/models/[^/\0]{1,100}\.json")
_KERAS = re.compile(rb"\.weights\.h5|keras_metadata|variables\.h5")
_NPZ = re.compile(rb"\.npy(?:PK|\W|\Z)")
_PICKLES = re.compile(rb"\.(?:pkl|pickle)(?:PK|\W|\Z)")
_ARCHIVES = (
    (_PACKAGE, "a torch.package archive: load the model from it, and save its state_dict()"),
    (_EXPORT, "a program of torch.export (.pt2): save torch.export.load(path).state_dict with torch.save"),
    (_KERAS, "a Keras model: save its weights with safetensors"),
    (_NPZ, "a numpy archive (.npz): save its arrays as tensors, with torch.save or safetensors"),
    (_PICKLES, f"a zip archive around other files: {_INSIDE}"),
)
"""Patterns for the bytes of a zip directory, where any bytes may follow a name."""


def foreign_file(data: ByteSource) -> str | None:
    """Name a file that no reader reads, and say what to do with it; None for an unknown file."""
    head = bytes(data[:_HEAD])
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if _HTML.match(head):
        return "a web page, such as a login or error page that was downloaded instead of the file"
    if _XML.match(head):
        return "an XML text, such as an error that an object store sent instead of the file"
    if _PICKLE.match(head):
        if b"torch.distributed.checkpoint" in head:
            return f"the .metadata of a folder that was saved with {_DCP}"
        return (
            "a plain pickle, not written by torch.save but by pickle.dump, joblib, numpy, scikit-learn or detectron2: "
            "load it if you trust it, and save its tensors with torch.save or safetensors"
        )
    if _JSON.match(head):
        return "a JSON text, such as a config, an index of shards, or an error that was downloaded instead of the file"
    if _ONNX.match(head):
        return "an ONNX model: upload the checkpoint that it was exported from"
    return None


def is_foreign_archive(directory: bytes) -> bool:
    """Tell whether a zip is another program's file, whatever checkpoints are in it."""
    return _DEFINITELY.search(directory) is not None


def foreign_zip(directory: bytes) -> str:
    """Name a zip file without a ``data.pkl`` by the names in its directory, and say what to do with it."""
    for pattern, name in _ARCHIVES:
        if pattern.search(directory):
            return name
    return "a zip file that torch.save did not write: it has no record data.pkl"


def shifted_zip() -> str:
    """Explain a zip file whose directory offsets count from inside the file."""
    return (
        "there are other bytes before the zip archive at its end. A .distcp file has several archives, one after "
        f"another, and is one file of a folder that was saved with {_DCP}"
    )
