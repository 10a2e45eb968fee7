"""Reader of a TorchScript archive, to a Document: a flat state_dict, as of ``torch.jit.load(...).state_dict()``.

A module's state is a mapping of all its attributes: tensors, submodules, plain values. Only the
program's text tells which tensors are parameters and buffers, so the keys found with the text are kept in the manifest,
and later plans look up only these keys.

Reference: torch/csrc/jit/serialization/python_print.cpp, torch/jit/_script.py (``RecursiveScriptModule``).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ...errors import HostileCheckpoint
from ...values.source import ByteSource
from ...values.work import Work
from ..document import Document
from ..modules import MAX_KEY_LENGTH, detached
from ..pickle.machine import parse
from ..pickle.nodes import Call, Dict, Node
from ..torch_tensors import TorchHooks, is_tensor
from ..torch_zip.archive import Archive
from ..tree import attribute_count, attributes_of, name_of
from .code import ModuleClass, module_classes

FORMAT = "torchscript"

_PROGRAM = "__torch__."
"""Common prefix of the names of a program's classes."""

Keep = Callable[[str | None, str], int | None]
"""Map a class's and an attribute's name to the tensor's rank: parameter 0, buffer 1, or None for neither."""


def read(document: Document, data: ByteSource, archive: Archive, work: Work) -> Document:
    """Read a program's weights. ``document`` is the archive read as a torch zip file. Raises HostileCheckpoint."""
    keep = _told_by(module_classes(data, archive, work))
    pairs = {key: detached(value) for key, value in _walk(document.root, "", keep, work, frozenset())}
    return replace(document, format=FORMAT, root=Dict(list(pairs.items())), keys=tuple(pairs))


def tree_of(skeleton: bytes, keys: Iterable[str], work: Work) -> Node:
    """Build the state_dict of ``keys`` from the pickle alone."""
    root = parse(skeleton, TorchHooks(work), work=work)
    found = dict(_walk(root, "", None, work, frozenset()))
    return Dict([(key, detached(found[key])) for key in keys])


def _told_by(classes: Mapping[str, ModuleClass]) -> Keep:
    def keep(class_name: str | None, name: str) -> int | None:
        known = classes.get(class_name or "")
        if known is None:
            return None
        if name in known.parameters:
            return 0
        return 1 if known.buffers is None or name in known.buffers else None

    return keep


def _walk(
    module: Node, prefix: str, keep: Keep | None, work: Work, above: frozenset[int]
) -> Iterator[tuple[str, Node]]:
    """Yield kept tensors by their keys: a module's parameters, its buffers, then its submodules' tensors.

    Without ``keep``, all tensors that may be kept. No key leads through an attribute with a dot in its name
    (graph-mode quantization makes such names for packed weights), so that no two paths give one key. Raises
    HostileCheckpoint for a kept tensor behind such a name.
    """
    name = name_of(module)
    if name is None or not name.startswith(_PROGRAM) or id(module) in above:
        return
    work.spend(4 + 4 * attribute_count(module))
    if len(prefix) > MAX_KEY_LENGTH:
        raise HostileCheckpoint(f"a key of more than {MAX_KEY_LENGTH:,} characters", rule="key-length")
    tensors: tuple[list[tuple[str, Node]], ...] = ([], [])
    submodules = []
    attributes = attributes_of(module)
    _check_names([key for key, _ in attributes])
    for key, value in attributes:
        if "." in key:
            if keep is not None:
                _check_hidden(name, key, value, keep, work, above | {id(module)})
        elif is_tensor(value):
            place = 0 if keep is None else keep(name, key)
            if place is not None:
                work.spend(4 + len(above) + (len(prefix) + len(key)) // 8)
                tensors[place].append((prefix + key, value))
        elif type(value) is Call:
            submodules.append((key, value))
    for kind in tensors:
        yield from kind
    above |= {id(module)}
    for key, value in submodules:
        yield from _walk(value, f"{prefix}{key}.", keep, work, above)


def _check_names(names: Sequence[Node]) -> None:
    if not all(type(name) is str for name in names) or len(set(names)) != len(names):
        raise _refused("the attributes of a module do not have distinct names")


def _check_hidden(class_name: str, key: str, value: Node, keep: Keep, work: Work, above: frozenset[int]) -> None:
    """Refuse a parameter or buffer of the name ``key``, and a submodule that holds one."""
    kept = keep(class_name, key) is not None if is_tensor(value) else any(_walk(value, "", keep, work, above))
    if kept:
        raise _refused(f"the name {key[:200]!r} of an attribute of a module has a dot")


def _refused(what: str) -> HostileCheckpoint:
    detail = f"the archive is damaged or forged: {what}"
    return HostileCheckpoint(detail, rule="torchscript-names", where="data.pkl")
