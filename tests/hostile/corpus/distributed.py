"""Saves of torch.distributed.checkpoint whose metadata lies about its items, its tensors or itself."""

import os
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

from tests.formats.zips import Entry, Zip
from tests.hostile.corpus.base import Files, inert, refused
from tests.support.dcp_files import Save, grid, saved

HALVES = grid((8, 6), ([4], []))
QUARTERS = grid((8, 6), ([4], [3]))


def files() -> Files:
    yield inert("an honest save", of(honest()))
    yield inert("a save beside others", zipped({f"step/{path}": data for path, data in honest().contents().items()}))
    yield from places()
    yield from chunks()
    yield from items()
    yield from paths()
    yield from pickles()
    yield from missing()


def honest() -> Save:
    """A save with a tensor in halves, one in quarters, a whole one, and a value."""
    save = Save()
    save.add_tensor("model.rows", torch.arange(48.0).reshape(8, 6), HALVES, ("model", "rows"))
    save.add_tensor("model.grid", torch.arange(48.0).reshape(8, 6), QUARTERS, ("model", "grid"))
    save.add_tensor("model.whole", torch.arange(8.0), path=("model", "whole"))
    save.add_value("epoch", 3)
    return save


def zipped(contents: Mapping[str, bytes]) -> bytes:
    return Zip([Entry(path.encode(), data) for path, data in contents.items()]).build()


def of(save: Save) -> bytes:
    return zipped(save.contents())


def changed(change: Callable[[Save], Any]) -> bytes:
    save = honest()
    change(save)
    return of(save)


def at(key: str, *offsets: int) -> MetadataIndex:
    return MetadataIndex(key, torch.Size(offsets))


def places() -> Files:
    """Items that are not where they are said to be."""
    for path in (
        "../__0_0.distcp",
        "/etc/passwd",
        "none.distcp",
        "a/../__0_0.distcp",
        "",
        ".",
        "model.pt",
        "x" * 100_000,
    ):
        yield refused(f"an item in {path[:20]!r}", moved(path, 0, 100), "dcp-missing")
    for start, length in (
        (0, 10**9), (10**9, 10), (-1, 100), (0, 0), (0, -5), (2**70, 2**70), (100, 2**63), (-(2**63), 2**63 + 5),
    ):  # fmt: skip
        yield refused(f"an item at {start}, {length} long", moved("__0_0.distcp", start, length), "dcp-extent")
    yield refused("an item that is cut off", with_field("length", 700), "zip-end", "dcp-item")
    yield refused("an item within another", moved("__0_0.distcp", 1, 700), "dcp-extent", "dcp-item")
    for field, value in (("offset", "0"), ("length", 1.5), ("relative_path", 7), ("offset", None), ("length", [1])):
        yield refused(f"{field} is {value!r}", with_field(field, value), "dcp-metadata")
    yield refused("compressed items", with_field("transform_descriptors", ["zstd"]), "dcp-transformed")

    def share(save: Save) -> None:
        data = save.metadata.storage_data
        data[at("model.rows", 4, 0)] = data[at("model.rows", 0, 0)]

    yield refused("one item for two chunks", changed(share), "dcp-extent")


def moved(path: str, start: int, length: int) -> bytes:
    def move(save: Save) -> None:
        save.metadata.storage_data[at("model.whole", 0)] = _StorageInfo(path, start, length)

    return changed(move)


def with_field(name: str, value: object) -> bytes:
    def set_field(save: Save) -> None:
        setattr(save.metadata.storage_data[at("model.whole", 0)], name, value)

    return changed(set_field)


def chunks() -> Files:
    """Chunks that are not the tensor's."""
    for name, boxes in (
        ("a half", HALVES[:1]),
        ("none", []),
        ("a half twice", [HALVES[0], HALVES[0]]),
        ("overlapping ones", [((0, 0), (5, 6)), ((4, 0), (4, 6))]),
        ("a gap and an overlap", [((0, 0), (4, 6)), ((2, 0), (4, 6))]),
        ("one outside", [((0, 0), (4, 6)), ((6, 0), (4, 6))]),
        ("one far outside", [((0, 0), (4, 6)), ((2**62, 0), (4, 6))]),
        ("one of three dimensions", [((0, 0), (4, 6)), ((4, 0, 0), (4, 6, 1))]),
        ("crossing ones", [((0, 0), (8, 3)), ((0, 0), (4, 6)), ((4, 3), (4, 3))]),
    ):
        yield refused(f"chunks: {name}", with_chunks(boxes), "dcp-chunks", "dcp-missing")
    for name, place in (("negative", (-1, 0)), ("floats", (0.5, 0)), ("texts", ("0", "0"))):
        yield refused(f"chunks: {name}", with_chunks([(place, (4, 6))]), "dcp-metadata")
    for name, shape in (
        ("larger", (9, 6)), ("huge", (2**40, 2**40)), ("endless", (2**62,) * 60), ("of 65 dimensions", (1,) * 65),
        ("of another rank", (48,)),
    ):  # fmt: skip
        yield refused(f"a shape that is {name}", with_shape(shape), "dcp-chunks", "dcp-metadata", "dcp-missing")
    many = [((i, 0), (1, 1)) for i in range(3_000)] + [((0, i), (1, 1)) for i in range(3_000)]
    yield refused("chunks that cut each other's rows", with_chunks(many, (3_000, 3_000)), "dcp-chunks", "dcp-missing")


def sizes(values: Any) -> Any:
    return torch.Size(values) if all(type(value) is int for value in values) else tuple(values)


def with_chunks(boxes: Any, shape: tuple[int, ...] = (8, 6)) -> bytes:
    def set_chunks(save: Save) -> None:
        described = save.metadata.state_dict_metadata["model.rows"]
        described.size = torch.Size(shape)
        described.chunks = [ChunkStorageMetadata(sizes(offsets), sizes(size)) for offsets, size in boxes]

    return changed(set_chunks)


def with_shape(shape: tuple[int, ...]) -> bytes:
    def set_shape(save: Save) -> None:
        save.metadata.state_dict_metadata["model.rows"].size = torch.Size(shape)

    return changed(set_shape)


def items() -> Files:
    """Items that are not what the metadata says."""
    whole = torch.arange(8.0)
    for name, item in (
        ("another dtype", saved(whole.double())),
        ("another shape", saved(whole[:4].clone())),
        ("another rank", saved(whole.reshape(2, 4))),
        ("a dict", saved({"x": whole})),
        ("two tensors", saved([whole, whole])),
        ("a number", saved(3)),
        ("a sparse tensor", saved(whole.to_sparse())),
        ("a conjugate", saved(torch.arange(8.0).to(torch.complex64).conj())),
        ("nothing of torch's", b"PK\3\4" + bytes(900)),
        ("zeros", bytes(900)),
        ("a pickle", pickle.dumps(3)),
        ("two files of torch.save", saved(whole) + saved(whole)),
    ):
        yield refused(f"an item of {name}", with_item(item), "dcp-item", "zip-end", "zip-directory", "no-pickle")


def with_item(item: bytes) -> bytes:
    return changed(lambda save: save.add_item(at("model.whole", 0), item, "__9_0.distcp"))


def paths() -> Files:
    """Places in the state_dict that cannot be."""
    for name, path in (
        ("taken", ("model", "whole")),
        ("through a tensor", ("model", "whole", "x")),
        ("empty", ()),
        ("a text of a list", ("model", "whole", 0)),
        ("far in a list", ("list", 10**12)),
        ("rather far in a list", ("list", 10**6)),
        ("negative", ("list", -1)),
        ("long", ("x",) * 1_000),
        ("a float", ("list", 0.5)),
        ("nothing", (None,)),
    ):
        yield refused(f"a path that is {name}", with_path(path), "dcp-path")
    for name, value in (("a text", "abc"), ("None", None), ("a number", 3)):
        yield refused(f"a path that is {name}", with_path(value), "dcp-path")
    yield inert("a number as a key", with_path(("model", 3, "x")))
    yield inert("no paths", changed(lambda save: setattr(save.metadata, "planner_data", None)))
    yield inert("a planner's own data", changed(lambda save: setattr(save.metadata, "planner_data", [1, 2])))


def with_path(path: object) -> bytes:
    return changed(lambda save: save.metadata.planner_data.update(epoch=path))


class _Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/hostile",)


def pickles() -> Files:
    """Metadata that is something else."""
    named = ("posix.system",)
    yield inert("code in planner_data", changed(lambda s: s.metadata.__dict__.update(planner_data=_Runs())), *named)
    yield inert("code in storage_meta", changed(lambda s: s.metadata.__dict__.update(storage_meta=_Runs())), *named)
    contents = honest().contents()
    for name, data in (
        ("a number", pickle.dumps(3)),
        ("code", pickle.dumps(_Runs())),
        ("a list", pickle.dumps([1])),
        ("a dict of its names", pickle.dumps({"state_dict_metadata": {}, "storage_data": {}})),
        ("code for its parts", changed_metadata(storage_data=_Runs())),
        ("nothing stored", changed_metadata(storage_data=None)),
        ("lists for its parts", changed_metadata(state_dict_metadata=[1], storage_data=[2])),
        ("a value for a tensor", changed_metadata(state_dict_metadata={"a": 3})),
        ("a number for a key", changed_metadata(state_dict_metadata={3: 4})),
        ("entries of numbers", changed_metadata(storage_data={1: 2})),
    ):
        rules = ("dcp-metadata", "dcp-missing")
        yield refused(f"metadata that is {name}", zipped({**contents, ".metadata": data}), *rules)
    for name, data in (("empty", b""), ("text", b"hello"), ("half of it", contents[".metadata"][:500])):
        rules = ("truncated", "opcode", "memo-unknown", "length")
        yield refused(f"metadata that is {name}", zipped({**contents, ".metadata": data}), *rules)


def changed_metadata(**fields: object) -> bytes:
    save = honest()
    save.metadata.__dict__.update(fields)
    return save.contents()[".metadata"]


def missing() -> Files:
    """Folders without a part."""
    contents = honest().contents()
    for path in contents:
        rest = {name: data for name, data in contents.items() if name != path}
        yield refused(f"no {path}", zipped(rest), "dcp-missing")
    yield refused(
        "no item", changed(lambda save: save.metadata.storage_data.pop(at("model.rows", 4, 0))), "dcp-missing"
    )
    yield refused(
        "metadata in another folder",
        zipped({**{f"a/{n}": d for n, d in contents.items()}, "b/x.distcp": b""}),
        "dcp-missing",
    )
