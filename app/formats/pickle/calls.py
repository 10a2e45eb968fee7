"""Effects of opcodes on the nodes of the stack, where a real unpickler would call, set or fill an object.

There are two kinds: a *gatherer* takes all nodes above the last mark; an *operation* takes a fixed number from the top.
"""

from collections.abc import Callable

from . import opcodes as op
from .broken import Broken
from .nodes import Call, Dict, Global, Node, Set

Stack = list[Node]

MAX_STATES = 10
"""BUILDs of one object; pickling writes one. Each look-up of an attribute searches all of them."""


def called(function: Node, args: Node, how: str = "reduce", kwargs: Node = None) -> Call:
    """Record a call. Only a named or built function can be called, with a tuple."""
    if not isinstance(function, (Global, Call)):
        raise Broken("not-callable", f"it calls a {type(function).__name__}")
    if not isinstance(args, (tuple, Call)):
        raise Broken("arguments", f"it calls something with a {type(args).__name__} instead of a tuple")
    return Call(function, args, how, kwargs)


def items_of(target: Node) -> list[Node]:
    """Return the list to which APPEND appends."""
    if type(target) is list:
        return target
    if type(target) is Call:
        if not isinstance(target.items, list):
            target.items = []
        return target.items
    raise Broken("append", f"it appends to a {type(target).__name__}")


def pairs_of(target: Node) -> list[tuple[Node, Node]]:
    """Return the list to which SETITEM appends pairs."""
    if type(target) is Dict:
        return target.pairs
    if type(target) is Call:
        if not isinstance(target.pairs, list):
            target.pairs = []
        return target.pairs
    raise Broken("setitem", f"it sets items of a {type(target).__name__}")


def paired(items: Stack) -> list[tuple[Node, Node]]:
    if len(items) % 2:
        raise Broken("setitem", "a key has no value")
    return list(zip(items[::2], items[1::2], strict=True))


def _append(stack: Stack) -> None:
    item = stack.pop()
    items_of(stack[-1]).append(item)


def _newobj(stack: Stack) -> None:
    args = stack.pop()
    stack[-1] = called(stack[-1], args, "newobj")


def _newobj_ex(stack: Stack) -> None:
    kwargs, args = stack.pop(), stack.pop()
    stack[-1] = called(stack[-1], args, "newobj_ex", kwargs)


def _build(stack: Stack) -> None:
    state = stack.pop()
    target = stack[-1]
    if type(target) is not Call:
        raise Broken("build", f"it sets the state of a {type(target).__name__}")
    if not isinstance(target.states, list):
        target.states = []
    if len(target.states) == MAX_STATES:
        raise Broken("build", f"it sets the state of an object more than {MAX_STATES} times")
    target.states.append(state)


OPERATIONS: dict[int, Callable[[Stack], None]] = {
    op.NONE: lambda stack: stack.append(None),
    op.NEWTRUE: lambda stack: stack.append(True),
    op.EMPTY_LIST: lambda stack: stack.append([]),
    op.EMPTY_SET: lambda stack: stack.append(Set([])),
    op.DUP: lambda stack: stack.append(stack[-1]),
    op.APPEND: _append,
    op.NEWOBJ: _newobj,
    op.NEWOBJ_EX: _newobj_ex,
    op.BUILD: _build,
}


def _additems(stack: Stack, items: Stack) -> None:
    target = stack[-1]
    if type(target) is not Set or target.frozen:
        raise Broken("additems", f"it adds set items to a {type(target).__name__}, which is not a set")
    target.items += items


def _obj(stack: Stack, items: Stack) -> None:
    stack.append(called(items[0], tuple(items[1:]), "obj"))


GATHERERS: dict[int, Callable[[Stack, Stack], None]] = {
    op.POP_MARK: lambda stack, items: None,
    op.LIST: lambda stack, items: stack.append(items),
    op.DICT: lambda stack, items: stack.append(Dict(paired(items))),
    op.APPENDS: lambda stack, items: items_of(stack[-1]).extend(items),
    op.ADDITEMS: _additems,
    op.OBJ: _obj,
}
