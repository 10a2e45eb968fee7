"""Files that torch writes, and what torch reads from them: the judge of our reader and emitter."""

import io
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import torch

from app.formats.document import Document
from app.formats.pickle.emit import emit
from app.formats.pickle.nodes import Node, StorageRef, TensorRef
from app.formats.readers import read


def saved(obj: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer, **options)
    return buffer.getvalue()


def document(file: bytes) -> Document:
    return read(memoryview(file))


def loaded(file: bytes, *, weights_only: bool = False) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TypedStorage and strange protocols, of which torch warns
        return torch.load(io.BytesIO(file), weights_only=weights_only)


def records(file: bytes) -> dict[str, bytes]:
    """A file's records without their root folder."""
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def pickle_of(file: bytes) -> bytes:
    return records(file)["data.pkl"]


def torch_zip(parts: dict[str, bytes]) -> bytes:
    """A file with these records, written by torch's own writer (which adds version and serialization_id)."""
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    for name, data in parts.items():
        if name not in {"version", ".data/serialization_id"}:
            writer.write_record(name, data, len(data))
    writer.write_end_of_file()
    return buffer.getvalue()


def rewritten(file: bytes, replace: Callable[[StorageRef | TensorRef], Node] | None = None) -> bytes:
    """The same file with its pickle parsed and written back."""
    root = document(file).root
    pickle = emit(root) if replace is None else emit(root, replace)
    return torch_zip({**records(file), "data.pkl": pickle})


def assert_same(have: Any, want: Any) -> None:
    """The same types, values, tensors bit for bit, and the same sharing of objects and of storages."""
    pairs: dict[int, int] = {}
    storages: dict[int, int] = {}
    kept = []  # so that no id is used twice
    stack = [(have, want)]
    while stack:
        a, b = stack.pop()
        assert type(a) is type(b), (a, b)
        if id(b) in pairs:
            assert pairs[id(b)] == id(a), f"{b!r} was one object, and is no longer"
            continue
        if not isinstance(a, (int, float, bool, type(None), str, bytes, type, tuple)):
            pairs[id(b)] = id(a)
            kept.append((a, b))
        if isinstance(a, torch.Tensor):
            if a.is_nested:
                assert (a.dtype, str(a)) == (b.dtype, str(b))
                continue
            assert (a.shape, a.dtype, a.layout, a.device, a.requires_grad) == (
                b.shape, b.dtype, b.layout, b.device, b.requires_grad,
            )  # fmt: skip
            if a.layout is torch.strided and not a.is_quantized and not a.is_meta:
                assert (a.stride(), a.storage_offset()) == (b.stride(), b.storage_offset())
                data = a.untyped_storage().data_ptr(), b.untyped_storage().data_ptr()
                assert storages.setdefault(data[1], data[0]) == data[0]
                assert bytes(a.untyped_storage()) == bytes(b.untyped_storage())
                assert (a.is_conj(), a.is_neg()) == (b.is_conj(), b.is_neg())
            else:
                assert str(a) == str(b)
            stack.append((a.__dict__, b.__dict__))
        elif isinstance(a, dict):
            assert len(a) == len(b)
            stack += zip(a.keys(), b.keys(), strict=True)
            stack += zip(a.values(), b.values(), strict=True)
            if hasattr(a, "__dict__"):
                stack.append((a.__dict__, b.__dict__))
        elif isinstance(a, (list, tuple)):
            assert len(a) == len(b)
            stack += zip(a, b, strict=True)
        elif (hasattr(a, "__dict__") and not callable(a)) or isinstance(a, torch.nn.Module):
            stack.append((a.__dict__, b.__dict__))
        elif isinstance(a, (float, complex)):
            assert repr(a) == repr(b)
        else:
            assert repr(a) == repr(b)


def big_endian(file: bytes) -> bytes:
    """The file as a machine of the other byte order would have written it."""
    parts = records(file)
    for key, storage in read(memoryview(file)).storages.items():
        size = storage.dtype.itemsize // (2 if storage.dtype.name.startswith("complex") else 1)
        data = parts[f"data/{key}"]
        parts[f"data/{key}"] = b"".join(data[i : i + size][::-1] for i in range(0, len(data), size))
    return torch_zip({**parts, "byteorder": b"big"})
