"""Planning a download: a manifest, a skeleton and a selection become a virtual file. Pure, no I/O.

A skeleton is the bytes of the checkpoint's pickle, or header. It is parsed again for every plan, by the parser used
at upload: 147 tensors take 3 ms, and no second representation can ever disagree with the first.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, replace
from math import prod
from typing import Any

from ..errors import SelectionError
from ..formats.devices import REVISION as DEVICES_REVISION
from ..formats.devices import names_devices, put_on
from ..formats.pickle.emit import emit
from ..formats.pickle.nodes import Dict, Node, TensorRef
from ..formats.placement import Cut, Placement, apart, extent, trimmed, whole
from ..formats.readers import tree_of
from ..formats.safetensors.contents import contents_of, source_of
from ..formats.safetensors.write import WRITER_REVISION as SAFETENSORS_REVISION
from ..formats.safetensors.write import Content, write_safetensors
from ..formats.torch_zip.write import PICKLE_START, Record, write_torch_zip
from ..formats.tree import refs_in, refs_in_objects
from ..select.components import choose_component
from ..select.one_tensor import TensorQuery
from ..select.query import StateDictQuery
from ..select.warmstart import Fitted
from ..values.conversion import Conversion
from ..values.dtype import DTYPES
from ..values.folder import FORMAT as FOLDER
from ..values.json_text import from_lines, to_lines
from ..values.manifest import Assembled, Manifest, Path, Storage
from ..values.span import Span
from ..values.virtual_file import VirtualFile
from ..values.work import Work
from .checksums_in_order import crc32_in_order
from .cost import check_cost
from .one_tensor import listed_tensor, one_tensor
from .pick import LEFT_OUT_REVISION, Picked, pick

_BYTES = DTYPES["uint8"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wanted part of a checkpoint: with ``query`` one component, with ``tensor`` one tensor, else the whole,
    remapped to ``device``.

    ``only`` are the new keys that a warm start matched; None means all keys that the query picks. ``fitted`` are those
    of them that are sent in another shape or dtype. ``apart``: the component lies in the file at its own path, and each
    of its tensors is a storage of its own, little-endian; but tied ones share one.
    """

    query: StateDictQuery | None = None
    only: tuple[str, ...] | None = None
    device: str | None = None
    tensor: TensorQuery | None = None
    fitted: tuple[Fitted, ...] = ()
    apart: bool = False

    def to_json(self) -> str:
        """Canonical text, without differences that cannot change the answer. ``only`` is on later lines, as texts, and
        after it ``fitted``, as lists.
        """
        if self.tensor is not None:
            return json.dumps({"tensor": self.tensor.to_json()}, sort_keys=True, separators=(",", ":"))
        query = None if self.query is None else json.loads(self.query.normalised())
        only: list[str] | None = None if self.only is None else []
        fields = {"query": query, "only": only, "device": self.device, **({"apart": True} if self.apart else {})}
        head = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        rest = [to_lines(items, ascii_only=True) for items in (self.only, list(map(astuple, self.fitted))) if items]
        return "\n".join([head, *rest])

    @classmethod
    def from_json(cls, text: str) -> "Wanted":
        """Invert ``to_json``, which once wrote only one line."""
        head, _, keys = text.partition("\n")
        fields = json.loads(head)
        if "tensor" in fields:
            return cls(tensor=TensorQuery.from_json(fields["tensor"]))
        items = from_lines(keys)
        only = None if fields["only"] is None else (*fields["only"], *(each for each in items if type(each) is str))
        fitted = tuple(
            Fitted(key, None if shape is None else tuple(shape), dtype)
            for key, shape, dtype in (each for each in items if type(each) is list)
        )
        if fields["query"] is None:
            return cls(device=fields["device"])
        query: dict[str, Any] = fields["query"]
        prefix = query.get("strip_prefix")
        query["strip_prefix"] = [prefix] if isinstance(prefix, str) else prefix or []
        for name in ("strip_prefix", "include", "exclude", "rename", "dtype_exclude"):
            query[name] = tuple(tuple(v) if isinstance(v, list) else v for v in query.get(name, ()))
        return cls(StateDictQuery(**query), only, fitted=fitted, apart=fields.get("apart", False))


@dataclass(frozen=True, slots=True)
class PlannedStorage:
    """A storage of the planned file, or a tensor of a safetensors file. ``span`` is its place in the planned file,
    ``source`` its place in the uploaded file, or its conversion. ``is_plain``: torch.load builds its tensors without
    looking at its bytes.
    """

    span: Span
    source: Span | Conversion
    is_plain: bool = True


@dataclass(frozen=True, slots=True)
class TensorForm:
    """The dtype, by torch's name, and the shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned file. ``left_out`` are the dotted paths of values that the file cannot hold. ``pickle`` is the span of
    a torch file's pickle, ``byteorder`` that of its storages. ``names_devices``: the checkpoint has tensors of devices
    without storages. ``tensor`` is the form of the only tensor, in a file of one.
    """

    file: VirtualFile
    left_out: tuple[str, ...] = ()
    storages: tuple[PlannedStorage, ...] = ()
    format: str = "pt"
    pickle: Span | None = None
    byteorder: str = "little"
    names_devices: bool = False
    tensor: TensorForm | None = None

    @property
    def rules(self) -> str:
        """The rules that the file is written by, each with its revision. Its ETag names them."""
        rules = "plan" if self.format == "pt" else f"{self.format} {SAFETENSORS_REVISION}"
        if self.left_out:
            rules += f" without {LEFT_OUT_REVISION}"
        if self.names_devices:
            rules += f" on devices {DEVICES_REVISION}"
        return rules

    def weight(self) -> int:
        """Approximate size in memory, in bytes."""
        return (
            len(self.file.literals)
            + 16 * len(self.file.starts)
            + 250 * len(self.storages)
            + 1000 * len(self.file.conversions)
            + sum(map(len, self.left_out))
        )


def plan_original(manifest: Manifest) -> Plan:
    made = plan_span(Span(0, manifest.size))
    return replace(made, format="zip") if manifest.format == FOLDER else made


def plan_span(span: Span) -> Plan:
    """Plan a file that is bytes ``span`` of the upload."""
    file = VirtualFile()
    file.add_span(span)
    return Plan(file)


def plan(manifest: Manifest, skeleton: bytes, wanted: Wanted, work: Work | None = None) -> Plan:
    """Lay out the wanted file. Raises SelectionError, and HostileCheckpoint if that takes too much work."""
    work = work or Work.for_plan()
    root = tree_of(manifest, skeleton, work)
    storages = {storage.key: storage for storage in manifest.viewed}
    if wanted.tensor is not None:
        return _tensor_file(one_tensor(root, manifest, wanted.tensor, work), wanted.tensor)
    devices = names_devices(skeleton)
    if wanted.query is None:
        if wanted.device is not None and devices:
            put_on(wanted.device, root, work)
        made = _torch_file(root, whole(storages, wanted.device), manifest, (), work)
        return replace(made, names_devices=devices)
    picked = pick(root, manifest, wanted.query, wanted.only, wanted.fitted, work)
    if wanted.apart:
        number = choose_component(manifest, wanted.query.component)
        tree = _at(() if number is None else manifest.components[number].path, picked.tree)
        own = apart(refs_in(tree), storages)
        return _torch_file(tree, own, replace(manifest, byteorder="little"), picked.left_out, work)
    if wanted.query.format == "safetensors":
        return _safetensors_file(picked, storages, manifest, work)
    if wanted.query.device is not None and devices:
        put_on(wanted.query.device, picked.tree, work)
    gathered = _worth_gathering(picked.corners, storages, manifest, work)
    placement = trimmed(refs_in(picked.tree), storages, wanted.query.device, picked.targets, gathered)
    return replace(_torch_file(picked.tree, placement, manifest, picked.left_out, work), names_devices=devices)


def plan_listed(manifest: Manifest, skeleton: bytes, wanted: Wanted, work: Work) -> Plan | None:
    """Do as ``plan`` for one tensor, without parsing the skeleton; None where that has to be parsed."""
    if wanted.tensor is None:
        return None
    tensor = listed_tensor(manifest, skeleton, wanted.tensor, work)
    return None if tensor is None else _tensor_file(tensor, wanted.tensor)


def _at(path: Path, tree: Node) -> Node:
    for name in reversed(path):
        tree = Dict([(name, tree)])
    return tree


def _worth_gathering(
    corners: Iterable[TensorRef], storages: Mapping[str, Storage], manifest: Manifest, work: Work
) -> frozenset[int]:
    """Return the ids of the tensors whose elements are fewer bytes than the stretch where they lie; none, if it takes
    too many reads to collect them.
    """
    scattered: dict[int, Content] = {}
    for ref in corners:
        start, end = extent(ref)
        if prod(ref.shape) * ref.dtype.itemsize < end - start:
            source = source_of(ref, ref.dtype, storages[ref.storage.key].span, manifest.byteorder)
            scattered[id(ref)] = Content(ref.storage.key, ref.dtype, ref.shape, source)
    try:
        check_cost(scattered.values(), manifest, work)
    except SelectionError:
        return frozenset()
    return frozenset(scattered)


def _torch_file(root: Node, placement: Placement, manifest: Manifest, left_out: tuple[str, ...], work: Work) -> Plan:
    pickle = emit(root, placement.replace, work)
    assembled = {each.storage.key: each for each in manifest.assembled}
    records = [_record(cut, assembled.get(cut.storage.key), manifest) for cut in placement.cuts]
    file, spans = write_torch_zip(pickle, records, manifest.byteorder)
    looked_at = placement.numbers(refs_in_objects(root)) if manifest.byteorder == "little" else range(len(records))
    planned = (
        PlannedStorage(span, record.source, number not in looked_at)
        for number, (span, record) in enumerate(zip(spans, records, strict=True))
    )
    where = Span(PICKLE_START, PICKLE_START + len(pickle))
    return Plan(file, left_out, tuple(planned), pickle=where, byteorder=manifest.byteorder)


def _record(cut: Cut, assembled: Assembled | None, manifest: Manifest) -> Record:
    """Return the record of a storage, with its CRC32 if that is known without reading."""
    source, is_unchanged = cut.source(manifest.byteorder), cut.is_whole and cut.cast is None
    if assembled is None:
        return Record(source, cut.storage.crc32 if is_unchanged else None)
    if assembled.is_in_order:
        return Record(source, crc32_in_order(assembled, manifest.storages) if is_unchanged else None)
    if isinstance(source, Span) and source.length:  # its CRC32 is computed as it is put together and sent
        source = Conversion(source, _BYTES, _BYTES, ((source.length, 1),))
    return Record(source, None)


def _safetensors_file(picked: Picked, storages: Mapping[str, Storage], manifest: Manifest, work: Work) -> Plan:
    contents = contents_of(picked.leaves(work), storages, picked.targets, manifest.byteorder)
    check_cost(contents.tensors, manifest, work)
    metadata = {"format": "pt", **manifest.metadata, **contents.notes} | {"format": "pt"}  # whatever the upload says
    file, places = write_safetensors(contents.tensors, metadata)
    left_out = (*picked.left_out, *contents.left_out)
    return Plan(file, left_out, tuple(PlannedStorage(*place) for place in places), format="safetensors")


def _tensor_file(tensor: Content, query: TensorQuery) -> Plan:
    if query.format == "raw":
        file = VirtualFile()
        file.add(tensor.source)
    else:
        file, _ = write_safetensors([tensor], {"format": "pt"})
    storages = (PlannedStorage(Span(file.size - tensor.size, file.size), tensor.source),)
    return Plan(file, (), storages, format=query.format, tensor=TensorForm(tensor.dtype.name, tensor.shape))
