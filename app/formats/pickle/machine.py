"""A pickle machine that builds nodes, never objects.

The machine understands every opcode of protocols 0 to 5, and keeps a stack and a memo like Python's unpickler. Imports,
calls and assignments are recorded, never executed. Nothing is looked up by a name from the file, and nothing from the
file is hashed but str and memo indices.

References: Lib/pickle.py and Lib/pickletools.py; torch/_weights_only_unpickler.py.
"""

from collections.abc import Callable, Mapping
from itertools import repeat
from struct import error as struct_error
from typing import Protocol

from ...errors import HostileCheckpoint, NotACheckpoint, RefusedCheckpoint
from ...values.work import Work
from . import opcodes as op
from .broken import Broken
from .calls import GATHERERS, OPERATIONS, called, paired, pairs_of
from .dense import STEPS, DenseTensors
from .hashing import HASHING, Hashing
from .limits import LIMITS, Limits
from .literals import READERS, beyond_the_end, decimal, line, read_i32, read_u16, read_u32, read_u64
from .memo import Memo
from .names import is_unicode, python3_name
from .nesting import check_nesting
from .nodes import Dict, Global, Node, Persistent, Set

HIGHEST_PROTOCOL = 5
LOOK_BACK = 8
"""Values, and marks, that are searched for a text near a name."""

MAX_NAME_LENGTH = 4096
"""Characters in a module's or a function's name."""

_STRIDE = 10_000
"""Opcodes between two checks of the stack's size and the remaining work."""

_MARKS_PER_LEVEL = 10

Builder = Callable[[Global, Node], Node]
"""Function from the called function and its arguments to the node for the call."""


class Hooks(Protocol):
    """A format's handling of a pickle's persistent ids and calls. The methods may raise RefusedCheckpoint."""

    @property
    def builders(self) -> Mapping[str, Builder]:
        """Builders by the full name of the called function."""

    def persistent(self, pid: Node) -> Node:
        """Return the node for a persistent id."""

    def named(self, name: Global, near: str | None) -> None:
        """Called once for each global, when first named; ``near`` is the last str read before, often its key."""


class InertHooks:
    """Keeps persistent ids and calls as they are."""

    builders: Mapping[str, Builder] = {}

    def persistent(self, pid: Node) -> Node:
        return Persistent(pid)

    def named(self, name: Global, near: str | None) -> None:
        pass


def parse(
    data: bytes | memoryview,
    hooks: Hooks | None = None,
    *,
    record: str = "data.pkl",
    limits: Limits = LIMITS,
    work: Work | None = None,
) -> Node:
    """Parse ``data``, exactly one pickle; return its root node. Errors call the pickle ``record``.

    Raises NotACheckpoint if ``data`` is no pickle or ends early, HostileCheckpoint if it breaks a rule.
    """
    if len(data) > limits.nbytes:
        detail = f"the pickle has {len(data)} bytes; at most {limits.nbytes} are allowed"
        raise HostileCheckpoint(detail, rule="pickle-size", where=record)
    root, end = parse_first(data, hooks, record=record, limits=limits, work=work)
    if end != len(data):
        detail = f"the pickle is damaged or forged: {len(data) - end} bytes follow its end"
        raise HostileCheckpoint(detail, rule="trailing-bytes", where=f"{record}, byte {end}")
    return root


def parse_first(
    data: bytes | memoryview,
    hooks: Hooks | None = None,
    *,
    record: str = "data.pkl",
    limits: Limits = LIMITS,
    work: Work | None = None,
) -> tuple[Node, int]:
    """Parse the pickle at the start of ``data``; return its root node and its end. Raises as ``parse`` does."""
    work = work or Work()
    work.allow(len(data))
    root, end = _Machine(bytes(data), hooks or InertHooks(), record, limits, work).run()
    check_nesting(root, limits.nesting, record, work)
    return root, end


class _Machine:
    def __init__(self, data: bytes, hooks: Hooks, record: str, limits: Limits, work: Work) -> None:
        self.data = data
        self.hooks = hooks
        self.record = record
        self.limits = limits
        self.work = work
        self.protocol = 0
        self.memo = Memo(limits.memo_slots)
        self.globals: dict[tuple[str, str], Global] = {}
        self.builders: dict[Global, Builder] = {}
        self.hashing = Hashing(work)

    def run(self) -> tuple[Node, int]:
        """Run to STOP; return the value left, and the position behind STOP.

        This loop takes most of the time: opcodes of tensors come first, other opcodes are in tables.
        """
        data, memo, builders = self.data, self.memo, self.builders
        slots, max_slots = memo.dense, memo.max_slots
        dense = DenseTensors(memo, self.hooks.persistent, builders)
        stack: list[Node] = []
        outer: list[list[Node]] = []  # the stacks below each mark; ``stack`` is above the last mark
        stride = min(_STRIDE, self.limits.opcodes, max(1, len(data)))  # a byte is at most an opcode
        pos = at_once = 0
        try:
            for _ in repeat(None, self.limits.opcodes // stride):
                self._check_stack(stack, outer)
                self.work.spend(stride + STEPS * at_once)
                at_once = 0
                for _ in repeat(None, stride):
                    code = data[pos]
                    pos += 1
                    if code == op.LONG_BINPUT:
                        index = read_u32(data, pos)[0]
                        pos += 4
                        if index == len(slots) < max_slots:
                            slots.append(stack[-1])
                        else:
                            memo.put(index, stack[-1])
                    elif code == op.BINGET:
                        index = data[pos]
                        pos += 1
                        stack.append(slots[index] if index < len(slots) else memo.get(index))
                    elif code == op.BININT1:
                        stack.append(data[pos])
                        pos += 1
                    elif code == op.MARK:
                        if data[pos] == op.MARK and stack and (found := dense.read(data, pos - 1, stack[-1])):
                            stack[-1], pos = found
                            at_once += 1
                        else:
                            outer.append(stack)
                            stack = []
                    elif code == op.TUPLE:
                        items = tuple(stack)
                        stack = outer.pop()
                        stack.append(items)
                    elif code == op.BINUNICODE:
                        end = pos + 4 + read_u32(data, pos)[0]
                        if end > len(data):
                            raise beyond_the_end()
                        stack.append(data[pos + 4 : end].decode("utf-8", "surrogatepass"))
                        pos = end
                    elif code == op.REDUCE:
                        args = stack.pop()
                        function = stack[-1]
                        if type(function) is Global and function in builders:
                            stack[-1] = builders[function](function, args)
                        else:
                            stack[-1] = called(function, args)
                    elif code == op.TUPLE2:
                        last = stack.pop()
                        stack[-1] = (stack[-1], last)
                    elif code == op.BININT2:
                        stack.append(read_u16(data, pos)[0])
                        pos += 2
                    elif code == op.EMPTY_TUPLE:
                        stack.append(())
                    elif code == op.TUPLE1:
                        stack[-1] = (stack[-1],)
                    elif code == op.BINPERSID:
                        stack[-1] = self.hooks.persistent(stack[-1])
                    elif code == op.NEWFALSE:
                        stack.append(False)
                    elif code == op.BININT:
                        stack.append(read_i32(data, pos)[0])
                        pos += 4
                    elif code == op.LONG_BINGET:
                        index = read_u32(data, pos)[0]
                        pos += 4
                        stack.append(slots[index] if index < len(slots) else memo.get(index))
                    elif code == op.MEMOIZE:
                        memo.put(len(memo), stack[-1])
                    elif code == op.BINPUT:
                        memo.put(data[pos], stack[-1])
                        pos += 1
                    elif code in READERS:
                        value, pos = READERS[code](data, pos)
                        stack.append(value)
                    elif code == op.TUPLE3:
                        last, middle = stack.pop(), stack.pop()
                        stack[-1] = (stack[-1], middle, last)
                    elif code == op.SETITEM:
                        last, middle = stack.pop(), stack.pop()
                        pairs_of(stack[-1]).append((middle, last))
                        if type(middle) is not str:
                            self.hashing.check_keys(stack[-1], (middle,))
                    elif code == op.SETITEMS:
                        gathered, stack = stack, outer.pop()
                        pairs_of(stack[-1]).extend(paired(gathered))
                        self.hashing.check_keys(stack[-1], gathered[::2])
                    elif code == op.EMPTY_DICT:
                        stack.append(Dict())
                    elif code in OPERATIONS:
                        OPERATIONS[code](stack)
                    elif code in GATHERERS:
                        gathered, stack = stack, outer.pop()
                        GATHERERS[code](stack, gathered)
                        if code == op.DICT:
                            self.hashing.check_keys(stack[-1], gathered[::2])
                        elif code == op.ADDITEMS:
                            self.hashing.check(gathered, "an item of a set")
                    elif code == op.POP:
                        if stack or not outer:
                            stack.pop()
                        else:
                            stack = outer.pop()
                    elif code == op.STOP:
                        return _result(stack, outer), pos
                    elif code == op.INST:
                        gathered, stack = stack, outer.pop()
                        pos = self._global(stack, pos, outer)
                        stack[-1] = called(stack[-1], tuple(gathered), "obj")
                    elif code == op.GLOBAL:
                        pos = self._global(stack, pos, outer)
                    elif code == op.FROZENSET:  # also as a name: torch's restricted unpickler knows neither
                        gathered, stack = stack, outer.pop()
                        self._named("builtins", "frozenset", stack, outer)
                        self.hashing.check(gathered, "an item of a set")
                        stack.append(Set(gathered, frozen=True))
                    else:
                        pos = self._rare(code, stack, pos, outer)
            raise self._hostile("opcodes", f"it has more than {self.limits.opcodes} opcodes", pos)
        except RefusedCheckpoint as error:
            error.where = error.where or self._at(pos)
            raise
        except Broken as error:
            raise self._hostile(error.rule, str(error), pos) from None
        except UnicodeDecodeError:
            raise self._hostile("utf-8", "a text is not valid UTF-8", pos) from None
        except ValueError as error:
            raise self._hostile("value", f"a value cannot be read ({error})", pos) from None
        except struct_error:
            raise self._ends_early(pos) from None
        except IndexError:
            if pos >= len(data):
                raise self._ends_early(pos) from None
            raise self._hostile("stack-underflow", "an opcode takes more values than the stack has", pos) from None

    def _check_stack(self, stack: list[Node], outer: list[list[Node]]) -> None:
        """Refuse a pickle that piles up values or marks that no container takes."""
        if len(outer) > _MARKS_PER_LEVEL * self.limits.nesting:
            raise Broken("nesting", f"values are nested more than {self.limits.nesting} levels deep")
        if len(stack) + sum(map(len, outer)) > self.limits.stack:
            raise Broken("stack-size", f"its stack has more than {self.limits.stack} values")

    def _rare(self, code: int, stack: list[Node], pos: int, outer: list[list[Node]]) -> int:
        """Run an opcode that is rare in large pickles; return the position behind its arguments."""
        data = self.data
        if code == op.STACK_GLOBAL:
            name, module = stack.pop(), stack.pop()
            if type(name) is not str or type(module) is not str:
                raise Broken("global-name", "the name of a global is not text")
            stack.append(self._named(module, name, stack, outer))
        elif code == op.PROTO:
            self.protocol = data[pos]
            if self.protocol > HIGHEST_PROTOCOL:
                detail = f"pickle protocol {self.protocol} is not supported; 0 to {HIGHEST_PROTOCOL} are"
                raise NotACheckpoint(detail, rule="protocol")
            pos += 1
        elif code == op.FRAME:
            if read_u64(data, pos)[0] > len(data) - pos - 8:
                raise beyond_the_end()
            pos += 8
        elif code == op.PUT:
            digits, pos = line(data, pos)
            self.memo.put(decimal(digits), stack[-1])
        elif code == op.GET:
            digits, pos = line(data, pos)
            stack.append(self.memo.get(decimal(digits)))
        elif code == op.PERSID:
            text, pos = line(data, pos)
            stack.append(self.hooks.persistent(text.decode("ascii")))
        elif code in {op.EXT1, op.EXT2, op.EXT4}:
            raise Broken("extension", "it uses a code of copyreg's extension registry")
        elif code in {op.NEXT_BUFFER, op.READONLY_BUFFER}:
            raise Broken("buffer", "it refers to a buffer outside the file")
        else:
            detail = f"{self.record} is not a pickle: byte {code:#04x} is not an opcode"
            raise NotACheckpoint(detail, rule="opcode", where=self._at(pos - 1))
        return pos

    def _global(self, stack: list[Node], pos: int, outer: list[list[Node]]) -> int:
        """Read two lines, module and name, and push the global."""
        module, pos = line(self.data, pos)
        name, pos = line(self.data, pos)
        stack.append(self._named(module.decode("utf-8"), name.decode("utf-8"), stack, outer))
        return pos

    def _named(self, module: str, name: str, stack: list[Node], outer: list[list[Node]]) -> Global:
        """Return the one node of a name; tell the hooks of a new name."""
        if self.protocol < 3:
            module, name = python3_name(module, name)
        known = self.globals.get((module, name))
        if known is None:
            if not _is_line(module) or not _is_line(name):  # could not be written again
                raise Broken("global-name", "the name of a global is not a line of text")
            known = self.globals[module, name] = Global(module, name)
            self.hooks.named(known, _last_text(stack, outer))
            builder = self.hooks.builders.get(known.full_name)
            if builder is not None:
                self.builders[known] = builder
            elif known.full_name in HASHING:
                self.builders[known] = self._hashed
        return known

    def _hashed(self, function: Global, args: Node) -> Node:
        """Record a call of a mapping or a set, with arguments that it could hash."""
        if args != ():
            self.hashing.check_call(function, args)
        return called(function, args)

    def _at(self, pos: int) -> str:
        return f"{self.record}, byte {pos}"

    def _hostile(self, rule: str, detail: str, pos: int) -> HostileCheckpoint:
        return HostileCheckpoint(f"the pickle is damaged or forged: {detail}", rule=rule, where=self._at(pos))

    def _ends_early(self, pos: int) -> NotACheckpoint:
        return NotACheckpoint(f"{self.record} ends early", rule="truncated", where=self._at(pos))


def _result(stack: list[Node], outer: list[list[Node]]) -> Node:
    """Return the value that STOP leaves: exactly one."""
    root = stack.pop()
    if stack or outer:
        raise Broken("stack-left", "values are left on the stack at its end")
    return root


def _is_line(text: str) -> bool:
    return len(text) <= MAX_NAME_LENGTH and "\n" not in text and is_unicode(text)


def _last_text(stack: list[Node], outer: list[list[Node]]) -> str | None:
    """Return the str nearest to the top of the stack: inside a dict, the key of the value being read."""
    for values in (stack, *reversed(outer[-LOOK_BACK:])):
        for value in reversed(values[-LOOK_BACK:]):
            if type(value) is str:
                return value
    return None
