"""A pickle as its opcodes and the values that they build, so that one value can replace another."""

from collections.abc import Sequence

from app.formats.pickle import opcodes as op

Tokens = list[bytes]
"""Each an opcode with its argument."""

_FIXED = {
    op.BININT1: 1, op.BININT2: 2, op.BININT: 4, op.BINFLOAT: 8, op.BINPUT: 1, op.LONG_BINPUT: 4, op.BINGET: 1,
    op.LONG_BINGET: 4, op.PROTO: 1, op.EXT1: 1, op.EXT2: 2, op.EXT4: 4, op.FRAME: 8,
}  # fmt: skip
_COUNTED = {
    op.SHORT_BINSTRING: 1, op.SHORT_BINBYTES: 1, op.LONG1: 1, op.SHORT_BINUNICODE: 1, op.BINSTRING: 4,
    op.BINUNICODE: 4, op.BINBYTES: 4, op.LONG4: 4, op.BINUNICODE8: 8, op.BINBYTES8: 8, op.BYTEARRAY8: 8,
}  # fmt: skip
"""How wide the number is that says how many bytes follow."""
_LINES = {
    op.INT: 1, op.LONG: 1, op.FLOAT: 1, op.STRING: 1, op.UNICODE: 1, op.PERSID: 1, op.PUT: 1, op.GET: 1,
    op.GLOBAL: 2, op.INST: 2,
}  # fmt: skip

_MERGED = {
    op.APPEND: 2, op.SETITEM: 3, op.BUILD: 2, op.REDUCE: 2, op.NEWOBJ: 2, op.NEWOBJ_EX: 3, op.STACK_GLOBAL: 2,
    op.TUPLE1: 1, op.TUPLE2: 2, op.TUPLE3: 3, op.BINPERSID: 1, op.PUT: 1, op.BINPUT: 1, op.LONG_BINPUT: 1,
    op.MEMOIZE: 1, op.READONLY_BUFFER: 1,
}  # fmt: skip
"""How many values of the stack become one."""
_GATHERED = frozenset({op.TUPLE, op.LIST, op.DICT, op.FROZENSET, op.INST, op.OBJ})
_GATHERED_INTO = frozenset({op.APPENDS, op.SETITEMS, op.ADDITEMS})
_NO_VALUE = frozenset({op.PROTO, op.FRAME, op.STOP})


def tokens_of(pickle: bytes) -> Tokens:
    """The opcodes up to STOP, and whatever follows as one more; joined they are ``pickle`` again."""
    tokens, pos = [], 0
    while pos < len(pickle):
        code = pickle[pos]
        end = pos + 1
        if code in _FIXED:
            end += _FIXED[code]
        elif code in _COUNTED:
            width = _COUNTED[code]
            end += width + int.from_bytes(pickle[end : end + width], "little")
        elif code in _LINES:
            for _ in range(_LINES[code]):
                end = pickle.find(b"\n", end) + 1 or len(pickle)
        tokens.append(pickle[pos:end])
        pos = end
        if code == op.STOP:
            break
    if pos < len(pickle):
        tokens.append(pickle[pos:])
    return tokens


def values_of(tokens: Sequence[bytes]) -> list[tuple[int, int]]:
    """Spans of tokens that push one value each, inner ones and unfinished containers among them."""
    values: list[tuple[int, int]] = []
    stack: list[int] = []  # where the tokens of each value start
    marks: list[tuple[int, int]] = []  # how much lies below each mark, and where it is
    for at, token in enumerate(tokens):
        code, start = token[0], at
        if code in _NO_VALUE:
            continue
        if code == op.MARK:
            marks.append((len(stack), at))
            continue
        if code in _GATHERED or code in _GATHERED_INTO or code == op.POP_MARK:
            if not marks:
                break
            below, start = marks.pop()
            del stack[below:]
        count = 1 if code in _GATHERED_INTO or code == op.POP else _MERGED.get(code, 0)
        if count:
            if len(stack) - (marks[-1][0] if marks else 0) < count:
                break
            start = stack[-count]
            del stack[-count:]
        if code not in {op.POP, op.POP_MARK}:
            stack.append(start)
            values.append((start, at + 1))
    return values
