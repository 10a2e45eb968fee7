"""Files that people upload by mistake, each made by its usual tool, and named in the error."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from app.errors import RefusedCheckpoint
from app.formats.index import index


def checkpoint() -> bytes:
    file = io.BytesIO()
    torch.save({"weight": torch.ones(3)}, file)
    return file.getvalue()


def zipped(names: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return file.getvalue()


def deflated(names: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return file.getvalue()


def package(folder: Path) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TypedStorage, which it uses itself
        with torch.package.PackageExporter(folder / "model.pt") as exporter:
            exporter.save_pickle("model", "model.pkl", {"weight": torch.ones(3)})
    return (folder / "model.pt").read_bytes()


def exported(folder: Path) -> bytes:
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, folder / "program.pt2")
    return (folder / "program.pt2").read_bytes()


def distributed(folder: Path, name: str) -> bytes:
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"a": torch.ones(3), "b": torch.ones(5)}, checkpoint_id=folder / "step", no_dist=True)
    return (folder / "step" / name).read_bytes()


def numpy_file(save: Callable[..., None]) -> bytes:
    file = io.BytesIO()
    save(file, np.ones(3))
    return file.getvalue()


def tar(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("model.pt")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


FILES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "git-lfs": (
        lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
        "git lfs pull",
    ),
    "a login page": (lambda _: b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title>", "a web page"),
    "a page behind a comment": (lambda _: b"<!-- cached -->\n<HTML>", "a web page"),
    "an object store's error": (lambda _: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "an XML text"),
    "an index of shards": (lambda _: json.dumps({"metadata": {}, "weight_map": {}}).encode(), "a JSON text"),
    "gzip": (lambda _: gzip.compress(checkpoint()), "a gzip file"),
    "bzip2": (lambda _: bz2.compress(checkpoint()), "a bzip2 file"),
    "xz": (lambda _: lzma.compress(checkpoint()), "an xz file"),
    "tar": (lambda _: tar(checkpoint()), "a tar archive"),
    "zip around a pickle": (lambda _: zipped({"run/model.pkl": checkpoint()}), "a zip archive around other files"),
    "a compressed folder": (lambda _: deflated({"run/model.pth": checkpoint()}), "zip -0 -r"),
    "zip of a page": (lambda _: zipped({"readme.txt": b"hello"}), "no record data.pkl"),
    "GGUF": (lambda _: b"GGUF\3\0\0\0" + bytes(64), "a GGUF file"),
    "HDF5": (lambda _: b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
    "Keras": (lambda _: zipped({"config.json": b"{}", "model.weights.h5": b""}), "a Keras model"),
    "numpy": (lambda _: numpy_file(np.save), "a numpy array"),
    "npz": (lambda _: numpy_file(np.savez), "a numpy archive"),
    "npz, deflated": (lambda _: numpy_file(np.savez_compressed), "a numpy archive"),
    **{
        f"a pickle of protocol {protocol}": (
            lambda _, protocol=protocol: pickle.dumps({"weight": np.ones(3)}, protocol),
            "a plain pickle",
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "an ONNX model": (lambda _: b"\x08\x07\x12\x07pytorch\x1a\x032.1:" + bytes(64), "an ONNX model"),
    "torch.package": (package, "a torch.package archive"),
    "torch.export": (exported, "a program of torch.export"),
    "one file of a distributed checkpoint": (lambda folder: distributed(folder, "__0_0.distcp"), "the whole folder"),
    "the metadata of one": (lambda folder: distributed(folder, ".metadata"), "upload the whole folder"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_checkpoint_is_named_for_what_it_is(kind: str, tmp_path: Path) -> None:
    make, said = FILES[kind]
    with pytest.raises(RefusedCheckpoint) as refused:
        index(memoryview(make(tmp_path)))
    assert said in refused.value.detail


def test_what_nobody_knows_is_told_how_checkpoints_begin() -> None:
    with pytest.raises(RefusedCheckpoint, match="PK 3 4"):
        index(memoryview(b"some other bytes" * 10))
