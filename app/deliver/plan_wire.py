"""Planning in a thread or in a child process: a long plan in a thread would hold up all other requests."""

import json
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import HostileCheckpoint
from ..formats.manifest_json import decode
from ..sandbox import run
from ..select.keys import Selected, select_keys
from ..select.query import StateDictQuery
from ..values.conversion import Conversion
from ..values.dtype import DTYPES
from ..values.json_text import decode_text, encode_text, from_lines, read_json, to_lines
from ..values.manifest import Manifest
from ..values.span import Span
from ..values.virtual_file import VirtualFile
from ..values.work import RULE as TOO_MUCH_WORK
from ..values.work import Work
from .plan import Plan, PlannedStorage, TensorForm, Wanted, plan, plan_listed

MAX_SKELETON_IN_THREAD = 300_000
"""Bytes of pickle. A child process plans longer pickles, and pickles that take more work for their bytes."""


def plan_here(manifest: Manifest, skeleton: bytes, wanted: Wanted) -> Plan | None:
    """Run ``plan``; return None if it takes more work than a thread of the server may do."""
    try:
        listed = plan_listed(manifest, skeleton, wanted, Work.here())
        if listed is not None or len(skeleton) > MAX_SKELETON_IN_THREAD:
            return listed
        return plan(manifest, skeleton, wanted, Work.here())
    except HostileCheckpoint as error:
        if error.rule != TOO_MUCH_WORK:
            raise
    return None


def plan_in_child(
    manifest: bytes, skeleton: bytes, wanted: Wanted, cancelled: Callable[[], bool] = lambda: False
) -> Plan:
    """Run ``plan`` in a child process. ``manifest`` is encoded. Raises Cancelled once ``cancelled()`` is true."""
    return _decode_plan(run(planned_parts, manifest, skeleton, wanted.to_json().encode(), cancelled=cancelled))


def planned_parts(manifest: bytes, skeleton: bytes, wanted: bytes) -> Sequence[bytes]:
    """Plan in the child process. Return the plan as byte strings."""
    return _encode_plan(plan(decode(manifest, gives_way=False), skeleton, Wanted.from_json(wanted.decode())))


def select(keys: Sequence[str], query: StateDictQuery, cancelled: Callable[[], bool] = lambda: False) -> Selected:
    """Run ``select_keys``, here or in a child. Raises SelectionError, and Cancelled once ``cancelled()`` is true."""
    try:
        return select_keys(keys, query, Work.here())
    except HostileCheckpoint as error:
        if error.rule != TOO_MUCH_WORK:
            raise
    wanted = Wanted(query=query).to_json().encode()
    positions, names = run(selected_parts, encode_text(to_lines(keys)), wanted, cancelled=cancelled)
    pairs = zip(array("q", positions), from_lines(decode_text(names)), strict=True)
    return tuple(pair for pair in pairs)  # other threads run meanwhile, as they do not in ``tuple(pairs)``


def selected_parts(keys: bytes, wanted: bytes) -> Sequence[bytes]:
    """Select keys in the child process. Return their positions and new names as byte strings."""
    query = Wanted.from_json(wanted.decode()).query
    selected = select_keys(from_lines(decode_text(keys)), query or StateDictQuery())
    return array("q", [i for i, _ in selected]).tobytes(), encode_text(to_lines([new for _, new in selected]))


def _encode_plan(planned: Plan) -> list[bytes]:
    file = planned.file
    fields = {
        "size": file.size,
        "checksums": [(offset, span.start, span.end) for offset, span in file.checksums],
        "left_out": planned.left_out,
        "storages": [(s.span.start, s.span.end, s.is_plain, *_encode_source(s.source)) for s in planned.storages],
        "conversions": [_encode_conversion(conversion) for conversion in file.conversions],
        "format": planned.format,
        "pickle": None if planned.pickle is None else [planned.pickle.start, planned.pickle.end],
        "byteorder": planned.byteorder,
        "names_devices": planned.names_devices,
        "tensor": None if planned.tensor is None else [planned.tensor.dtype, planned.tensor.shape],
    }
    return [json.dumps(fields).encode(), bytes(file.literals), file.starts.tobytes(), file.sources.tobytes()]


def _decode_plan(parts: Sequence[bytes]) -> Plan:
    fields = read_json(parts[0])
    starts, sources = array("q"), array("q")
    starts.frombytes(parts[2])
    sources.frombytes(parts[3])
    checksums = [(offset, Span(start, end)) for offset, start, end in fields["checksums"]]
    conversions = list(map(_decode_conversion, fields["conversions"]))
    tensor = fields["tensor"]
    return Plan(
        VirtualFile(bytearray(parts[1]), starts, sources, fields["size"], checksums, conversions),
        tuple(fields["left_out"]),
        tuple(
            PlannedStorage(Span(start, end), _decode_source(source), is_plain)
            for start, end, is_plain, *source in fields["storages"]
        ),
        format=fields["format"],
        pickle=None if fields["pickle"] is None else Span(*fields["pickle"]),
        byteorder=fields["byteorder"],
        names_devices=fields["names_devices"],
        tensor=None if tensor is None else TensorForm(tensor[0], tuple(tensor[1])),
    )


def _encode_source(source: Span | Conversion) -> list[Any]:
    return [source.start, source.end] if isinstance(source, Span) else _encode_conversion(source)


def _decode_source(source: list[Any]) -> Span | Conversion:
    return Span(*source) if len(source) == 2 else _decode_conversion(source)


def _encode_conversion(one: Conversion) -> list[Any]:
    span = (one.source.start, one.source.end)
    return [*span, one.dtype.name, one.to.name, one.dims, one.byteorder, one.to_byteorder, one.flips]


def _decode_conversion(fields: list[Any]) -> Conversion:
    start, end, dtype, to, dims, byteorder, to_byteorder, flips = fields
    dims = tuple((size, stride) for size, stride in dims)
    return Conversion(Span(start, end), DTYPES[dtype], DTYPES[to], dims, byteorder, to_byteorder, tuple(flips))
