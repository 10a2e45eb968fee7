"""Planning in a child process: for skeletons so large that parsing them would hold up everybody else."""

import json
from array import array
from collections.abc import Sequence

from ..formats.manifest_json import decode
from ..sandbox import run
from ..values.span import Span
from ..values.virtual_file import VirtualFile
from .plan import Plan, PlannedStorage, Wanted, plan


def plan_in_child(manifest: bytes, skeleton: bytes, wanted: Wanted) -> Plan:
    """``plan``, elsewhere. ``manifest`` is the encoded one."""
    return _decode_plan(run(planned_parts, manifest, skeleton, wanted.to_json().encode()))


def planned_parts(manifest: bytes, skeleton: bytes, wanted: bytes) -> Sequence[bytes]:
    """What the child does: plan, and give the plan as byte strings."""
    return _encode_plan(plan(decode(manifest), skeleton, Wanted.from_json(wanted.decode())))


def _encode_plan(planned: Plan) -> list[bytes]:
    file = planned.file
    fields = {
        "size": file.size,
        "checksums": [(offset, span.start, span.end) for offset, span in file.checksums],
        "left_out": planned.left_out,
        "storages": [(s.span.start, s.span.end, s.source.start, s.source.end) for s in planned.storages],
    }
    return [json.dumps(fields).encode(), bytes(file.literals), file.starts.tobytes(), file.sources.tobytes()]


def _decode_plan(parts: Sequence[bytes]) -> Plan:
    fields = json.loads(parts[0])
    starts, sources = array("q"), array("q")
    starts.frombytes(parts[2])
    sources.frombytes(parts[3])
    checksums = [(offset, Span(start, end)) for offset, start, end in fields["checksums"]]
    return Plan(
        VirtualFile(bytearray(parts[1]), starts, sources, fields["size"], checksums),
        tuple(fields["left_out"]),
        tuple(PlannedStorage(Span(a, b), Span(c, d)) for a, b, c, d in fields["storages"]),
    )
