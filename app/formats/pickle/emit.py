"""Writer of nodes as a pickle.

The protocol is 2, with only the opcodes that torch's restricted unpickler knows, if the nodes allow it; nodes that need
a later protocol (keyword arguments of ``__new__``, dotted names) raise the protocol in the header. The bytes depend on
the tree alone.

Identity is kept: a node with several references is written once and memoized, cycles included. Names, storage classes
and locations are memoized apart from the user's own text: a location is never one object with an equal text.

References: Lib/pickle.py, torch/_weights_only_unpickler.py.
"""

from collections.abc import Callable
from itertools import repeat
from struct import Struct

from ...errors import HostileCheckpoint
from ...values.work import Work
from . import opcodes as op
from .names import python3_name
from .nodes import FROM_TYPE, Call, Dict, Global, Node, Persistent, Set, StorageRef, TensorRef
from .survey import Replace, Survey, is_plain
from .work import BUILD, MARK, Arguments, Built, Op, appends, setitems

_STEPS_PER_REFERENCE = 16
"""Steps for each reference: a tree takes three or four. Tuples in cycles take more, up to a quadratic total."""

_STRIDE = 1_000
"""Steps between two checks of the remaining work."""

_BYTES_PER_STEP = 16
"""Bytes written for each step of work: a number is written at every reference."""

MIN_PROTOCOL = 2
LATE_PROTOCOL = 4
"""The protocol with NEWOBJ_EX and dotted names, in which names are not renamed from Python 2's."""

_U16, _I32, _U32, _F64 = Struct("<H").pack, Struct("<i").pack, Struct("<I").pack, Struct(">d").pack
_TUPLES = (b")", b"\x85", b"\x86", b"\x87")
_SMALL_INTS = [bytes([op.BININT1, number]) for number in range(256)]
_SMALL_GETS = [bytes([op.BINGET, slot]) for slot in range(256)]


def unchanged(ref: StorageRef | TensorRef) -> Node:
    return ref


def emit(root: Node, replace: Replace = unchanged, work: Work | None = None) -> bytes:
    """Write the pickle of ``root``.

    ``replace`` is called once for each TensorRef and StorageRef, and returns the node to write instead. If a tensor is
    returned unchanged, its storage is replaced; a new tensor is written unchanged, with its own storage.
    Raises TypeError for an object that is no node, HostileCheckpoint for cycles that would be written over and over.
    """
    work = work or Work.without_end()
    survey = Survey(root, replace, work)
    try:
        return _Writer(survey, memoizes_all=False).run(root, work)
    except _CycleWithoutMemo:
        return _Writer(survey, memoizes_all=True).run(root, work)


def _integer(node: int) -> bytes:
    if 0 <= node < 256:
        return _SMALL_INTS[node]
    if 0 <= node < 65536:
        return b"M" + _U16(node)
    if -(2**31) <= node < 2**31:
        return b"J" + _I32(node)
    size = (node if node >= 0 else ~node).bit_length() // 8 + 1
    start = bytes([op.LONG1, size]) if size < 256 else bytes([op.LONG4]) + _I32(size)
    return start + node.to_bytes(size, "little", signed=True)


class _CycleWithoutMemo(Exception):
    """A tuple or a call was reached again from inside itself: such a cycle ends only if all its nodes are memoized."""


class _Writer:
    def __init__(self, survey: Survey, *, memoizes_all: bool) -> None:
        self.survey = survey
        self.memoizes_all = memoizes_all
        self.protocol = MIN_PROTOCOL
        self.out = bytearray()
        self.work: list[Node] = []
        self.open: set[int] = set()
        """Shared nodes whose parts are being written, and which are not built yet."""
        self.slots = 0
        self.memo: dict[int, int] = {}
        self.pids: dict[int, int] = {}
        self.names: dict[tuple[str, str], int] = {}
        self.terms: dict[str, int] = {}
        self.writers: dict[type, Callable[[Node], None]] = {
            type(None): lambda node: self.write(b"N"),
            bool: lambda node: self.write(b"\x88" if node else b"\x89"),
            int: self.write_int,
            float: lambda node: self.write(b"G" + _F64(node)),
            complex: self.write_complex,
            str: self.write_str,
            bytes: self.write_bytes,
            bytearray: self.write_bytes,
            tuple: self.write_tuple,
            list: self.write_list,
            Dict: self.write_dict,
            Set: self.write_set,
            Global: self.write_global,
            Call: self.write_call,
            Persistent: self.write_persistent,
            StorageRef: self.write_storage,
            TensorRef: self.write_tensor,
            Op: lambda node: self.write(node.code),
            Built: self.finish,
            Arguments: lambda node: self.write_arguments(node.tensor, None, b"t", b"1"),
        }

    def run(self, root: Node, work: Work) -> bytes:
        self.work.append(root)
        for _ in repeat(None, 1 + _STEPS_PER_REFERENCE * self.survey.references // _STRIDE):
            written = len(self.out)
            for _ in repeat(None, _STRIDE):
                if not self.work:
                    return bytes([op.PROTO, self.protocol]) + self.out + b"."
                node = self.work.pop()
                kind = type(node)
                if kind is StorageRef or kind is TensorRef:
                    node = self.survey.final(node)
                    kind = type(node)
                slot = self.memo.get(id(node))
                if slot is not None:
                    self.write_get(slot)
                elif kind in self.writers:
                    self.writers[kind](node)
                else:
                    raise TypeError(f"a {kind.__name__} is not a node")
            work.spend(4 * _STRIDE + (len(self.out) - written) // _BYTES_PER_STEP)
        raise HostileCheckpoint("its values contain each other in too many ways to be written", rule="cycles")

    # One method for each kind of node. Parts are put on the work list, last first.

    def write(self, code: bytes) -> None:
        self.out += code

    def write_get(self, slot: int) -> None:
        self.out += _SMALL_GETS[slot] if slot < 256 else b"j" + _U32(slot)

    def put(self) -> int:
        """Memoize the top of the stack; return the slot."""
        slot = self.slots
        self.slots += 1
        self.out += bytes([op.BINPUT, slot]) if slot < 256 else b"r" + _U32(slot)
        return slot

    def memoize(self, node: Node) -> None:
        if self.memoizes_all or self.survey.is_shared(node):
            self.memo[id(node)] = self.put()

    def later(self, *nodes: Node) -> None:
        self.work += reversed(nodes)

    def build(self, node: Node, code: bytes, drop: bytes, *parts: Node) -> None:
        """Write the parts of a node, and then build the node from them, as ``Built`` describes."""
        if self.survey.is_shared(node):
            if id(node) in self.open and not self.memoizes_all:
                raise _CycleWithoutMemo
            self.open.add(id(node))
        self.later(*parts, Built(node, code, drop))

    def write_int(self, node: int) -> None:
        self.out += _integer(node)

    def write_complex(self, node: complex) -> None:
        self.write_name("builtins", "complex")
        self.out += b"G" + _F64(node.real) + b"G" + _F64(node.imag) + b"\x86R"

    def write_text(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self.out += b"X" + _U32(len(data)) + data

    def write_str(self, node: str) -> None:
        self.write_text(node)
        self.memoize(node)

    def write_term(self, text: str) -> None:
        """Write a text of the format itself, memoized by its value."""
        slot = self.terms.get(text)
        if slot is None:
            self.write_text(text)
            self.terms[text] = self.put()
        else:
            self.write_get(slot)

    def write_bytes(self, node: bytes | bytearray) -> None:
        """Write bytes as encoded text, as in protocol 2: every torch.load reads that with ``weights_only=True``."""
        if type(node) is bytes:
            self.write_name("_codecs", "encode")
        else:
            self.write_name("builtins", "bytearray")
        self.write_text(node.decode("latin-1"))
        self.write_term("latin-1")
        self.out += b"\x86R"
        self.memoize(node)

    def write_global(self, node: Global) -> None:
        self.write_name(node.module, node.name)

    def write_name(self, module: str, name: str) -> None:
        slot = self.names.get((module, name))
        if slot is not None:
            self.write_get(slot)
            return
        if "\n" in module or "\n" in name:
            raise TypeError("a global's name is one line")
        if "." in name or python3_name(module, name) != (module, name):
            self.protocol = LATE_PROTOCOL
        self.out += b"c" + f"{module}\n{name}\n".encode()
        self.names[module, name] = self.put()

    def write_tuple(self, node: tuple[Node, ...]) -> None:
        if not node:
            self.out += b")"
        elif len(node) < len(_TUPLES):
            self.build(node, _TUPLES[len(node)], b"0" * len(node), *node)
        else:
            self.build(node, b"t", b"1", MARK, *node)

    def write_list(self, node: list[Node]) -> None:
        self.out += b"]"
        self.memoize(node)
        self.later(*appends(node))

    def write_dict(self, node: Dict) -> None:
        self.out += b"}"
        self.memoize(node)
        self.later(*setitems(node.pairs))

    def write_set(self, node: Set) -> None:
        """Write a set as a call with a list: torch's restricted unpickler does not know protocol 4's set opcodes."""
        self.write_name("builtins", "frozenset" if node.frozen else "set")
        self.out += b"]"
        self.build(node, b"\x85R", b"00", *appends(node.items))

    def write_call(self, node: Call) -> None:
        args = node.args
        if (
            args == () and type(node.function) is Global and node.how == "reduce"
        ):  # one in every tensor: an OrderedDict()
            self.write_global(node.function)
            self.out += b")"
            self.finish(Built(node, b"R", b""))
        elif node.how == "obj":
            self.build(node, b"o", b"1", MARK, node.function, *args)
        elif node.how == "newobj_ex":
            self.protocol = LATE_PROTOCOL
            self.build(node, b"\x92", b"000", node.function, args, node.kwargs)
        elif node.how == "newobj":
            self.build(node, b"\x81", b"00", node.function, args)
        elif type(node.function) is Global and node.function.full_name in FROM_TYPE and type(args[2]) is TensorRef:
            self.write_from_type(node, args)
        else:
            self.build(node, b"R", b"00", node.function, args)

    def write_from_type(self, node: Call, args: tuple[Node, ...]) -> None:
        """Write a Tensor subclass: its tensor's rebuild function and arguments are arguments of the call."""
        _, kind, ref, state = args
        tensor = self.survey.final(ref)
        arguments = Arguments(tensor) if type(tensor) is TensorRef else tensor.args
        self.build(node, b"tR", b"10", node.function, MARK, tensor.function, kind, arguments, state)

    def finish(self, built: Built) -> None:
        node = built.node
        slot = self.memo.get(id(node))
        if slot is not None:
            self.out += built.drop
            self.write_get(slot)
            return
        self.out += built.code
        self.memoize(node)
        if type(node) is Call and (node.items or node.pairs or node.states):
            states = [part for state in node.states for part in (state, BUILD)]
            self.later(*appends(node.items), *setitems(node.pairs), *states)

    def write_persistent(self, node: Persistent) -> None:
        self.build(node, b"Q", b"0", node.pid)

    def write_storage(self, node: StorageRef) -> None:
        self.write_pid(node)

    def write_pid(self, storage: StorageRef) -> None:
        """Name a storage. Its id is memoized; the storage is loaded by its id each time, as in torch."""
        slot = self.pids.get(id(storage))
        if slot is not None:
            self.write_get(slot)
            self.out += b"Q"
            return
        key = storage.key.encode("utf-8", "surrogatepass")
        self.out += b"("
        self.write_term("storage")
        self.write_name(storage.storage_class.module, storage.storage_class.name)
        self.out += b"X" + _U32(len(key)) + key
        self.write_term(storage.location)
        self.out += _integer(storage.numel) + b"t"
        if self.survey.is_shared(storage):
            self.pids[id(storage)] = self.put()
        self.out += b"Q"

    def write_tensor(self, node: TensorRef) -> None:
        if self.memoizes_all or not is_plain(node):
            self.write_global(node.function)
            self.write_arguments(node, node, b"tR", b"10")
            return
        self.write_global(node.function)
        self.write_view(node)
        self.out += b"\x89"
        hooks = node.rest[1]
        slot = self.memo.get(id(hooks))
        if slot is None:
            self.write_global(hooks.function)
            self.out += b")R"
            self.memoize(hooks)
        else:
            self.write_get(slot)
        self.out += b"tR"
        self.memoize(node)

    def write_arguments(self, tensor: TensorRef, node: TensorRef | None, code: bytes, drop: bytes) -> None:
        self.write_view(tensor)
        self.build(node, code, drop, *tensor.rest)

    def write_view(self, tensor: TensorRef) -> None:
        """Write the first of a tensor's arguments: its storage, offset, sizes and strides, behind a mark."""
        self.out += b"("
        self.write_pid(self.survey.storage_of(tensor))
        parts = [_integer(tensor.offset)]
        for integers in (tensor.shape, tensor.stride):
            many = len(integers) >= len(_TUPLES)
            parts += (b"(" if many else b"", *map(_integer, integers), b"t" if many else _TUPLES[len(integers)])
        self.out += b"".join(parts)
