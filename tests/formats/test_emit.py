"""A pickle that is parsed and written back unpickles to the same object as the original."""

import argparse
import collections
import datetime as dt
import pathlib
import pickle
import pickletools
from typing import Any, Self

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from app.errors import HostileCheckpoint
from app.formats.pickle.emit import emit
from app.formats.pickle.machine import parse
from app.formats.pickle.nodes import Call, Dict, Global, Persistent, StorageRef, TensorRef
from app.values.dtype import DTYPES
from tests.support.measure import examples

PROTOCOLS = range(6)

WEIGHTS_ONLY_OPCODES = frozenset(
    {
        "PROTO", "STOP", "GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "MARK",
        "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWFALSE", "NEWTRUE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT",
        "EMPTY_SET", "BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "BINPERSID", "BINGET",
        "LONG_BINGET", "BINPUT", "LONG_BINPUT", "LONG1",
    }
)  # fmt: skip
"""What torch/_weights_only_unpickler.py reads."""


def again(data: bytes) -> bytes:
    return emit(parse(data))


def dumps(obj: Any, protocol: int) -> bytes:
    """The object as a pickle, or, where that protocol has no way to say it, another example."""
    try:
        return pickle.dumps(obj, protocol)
    except TypeError:
        reject()


def opcodes(data: bytes) -> set[str]:
    return {opcode.name for opcode, _, _ in pickletools.genops(data)}


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__ == other.__dict__

    __hash__ = object.__hash__

    class Inner:
        def __eq__(self, other: object) -> bool:
            return type(other) is type(self)

        __hash__ = object.__hash__


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: Any, b: Any) -> None:
        self.a, self.b = a, b

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and (self.a, self.b) == (other.a, other.b)

    __hash__ = object.__hash__


class Keyworded(tuple[Any, ...]):
    __slots__ = ()

    def __new__(cls, *, items: Any) -> Self:
        return super().__new__(cls, items)

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, Any]]:
        return (), {"items": tuple(self)}


class Listed(list[Any]):
    pass


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**80), max_value=2**80)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.binary(max_size=20)
    | st.builds(bytearray, st.binary(max_size=5))
    | st.dates()
    | st.sampled_from(
        [int, Plain, Plain.Inner, collections.OrderedDict, pathlib.PurePosixPath("a/b"), slice(1, None, 2)]
    )
)
keys = st.text(max_size=3) | st.integers() | st.tuples(st.integers(), st.booleans())
values = st.recursive(
    scalars,
    lambda inside: (
        st.lists(inside, max_size=5)
        | st.lists(inside, max_size=5).map(tuple)
        | st.dictionaries(keys, inside, max_size=5)
        | st.dictionaries(keys, inside, max_size=3).map(collections.OrderedDict)
        | st.sets(keys, max_size=4)
        | st.frozensets(keys, max_size=4)
        | st.builds(Plain, a=inside, b=inside)
        | st.builds(Slotted, inside, inside)
        | st.builds(Listed, st.lists(inside, max_size=3))
        | st.lists(inside, max_size=3).map(lambda items: Keyworded(items=items))
        | st.builds(argparse.Namespace, lr=inside)
        | st.lists(inside, max_size=3).map(collections.deque)
        | inside.map(lambda value: [value, value])  # one object, twice
    ),
    max_leaves=30,
)


@examples(200)
@given(values, st.sampled_from(PROTOCOLS))
def test_any_object_survives_with_its_sharing(obj: Any, protocol: int) -> None:
    data = dumps(obj, protocol)
    want, have = pickle.loads(data), pickle.loads(again(data))
    assert have == want
    assert pickle.dumps(have, 4) == pickle.dumps(want, 4)  # the same objects are the same objects again


@examples(100)
@given(values, st.sampled_from(PROTOCOLS))
def test_writing_again_and_again_changes_nothing(obj: Any, protocol: int) -> None:
    twice = again(again(dumps(obj, protocol)))
    assert again(twice) == twice


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**2000), max_value=2**2000)
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.binary()
    | st.builds(bytearray, st.binary()),
    lambda inside: (
        st.lists(inside) | st.lists(inside).map(tuple) | st.dictionaries(st.text(), inside) | st.sets(st.integers())
    ),
    max_leaves=20,
)


@examples(100)
@given(plain_values, st.sampled_from(PROTOCOLS))
def test_plain_values_need_only_what_weights_only_reads(obj: Any, protocol: int) -> None:
    data = again(pickle.dumps(obj, protocol))
    assert opcodes(data) <= WEIGHTS_ONLY_OPCODES
    assert data[:2] == b"\x80\x02"


@pytest.mark.parametrize("bits", [0, 7, 8, 15, 16, 31, 32, 63, 64, 2031, 2032, 2039, 2040, 20_000])
def test_integers_of_every_width_survive(bits: int) -> None:
    for number in (2**bits - 1, 2**bits, 2**bits + 1):
        assert pickle.loads(emit([number, -number])) == [number, -number]


@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1001, 2500])
def test_long_lists_and_dicts_are_written_in_batches(count: int) -> None:
    for obj in (list(range(count)), dict.fromkeys(range(count)), tuple(range(count)), frozenset(range(count))):
        assert pickle.loads(again(pickle.dumps(obj))) == obj


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cycles_of_every_kind_survive(protocol: int) -> None:
    through_list: list[Any] = []
    through_list.append((through_list, through_list))
    through_dict: dict[str, Any] = {}
    through_dict["self"] = ([through_dict], through_dict)
    plain = Plain()
    plain.me = (plain, frozenset({plain}), {plain})
    ring = Listed()
    ring.append({"ring": ring})
    for obj in (through_list, through_dict, plain, ring, (through_list, 1, 2, 3), [plain.me, plain]):
        data = pickle.dumps(obj, protocol)
        have, want = pickle.loads(again(data)), pickle.loads(data)
        if protocol >= 4:  # before, pickle itself cannot tell a set's cycle from a second set
            assert shape_of(have) == shape_of(want)
        assert type(have) is type(want)
    have = pickle.loads(again(pickle.dumps(through_list, protocol)))
    assert have[0][0] is have
    assert have[0][1] is have
    have = pickle.loads(again(pickle.dumps(through_dict, protocol)))
    assert have["self"][0][0] is have


def shape_of(root: Any) -> list[Any]:
    """A graph as numbers: each container's type and the numbers of what it holds, in order of a walk."""
    numbers: dict[int, int] = {}
    shape: list[Any] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) in numbers:
            shape.append(numbers[id(node)])
            continue
        numbers[id(node)] = len(numbers)
        shape.append(type(node))
        if isinstance(node, dict):
            stack += [*node.keys(), *node.values()]
        elif isinstance(node, (list, tuple, set, frozenset)):
            stack += node
        if hasattr(node, "__dict__"):
            stack += node.__dict__.values()
    return shape


def test_what_is_named_twice_is_memoized_and_what_is_named_once_is_not() -> None:
    shared = ["x"]
    data = emit([shared, shared, ["y"]])
    puts = [name for name, _, _ in ((opcode.name, arg, pos) for opcode, arg, pos in pickletools.genops(data))]
    assert puts.count("BINPUT") == 1
    assert puts.count("BINGET") == 1


def test_a_name_that_only_protocol_4_can_say_raises_the_protocol() -> None:
    data = again(pickle.dumps(Plain.Inner(), 4))
    assert data[1] == 4
    assert pickle.loads(data) == Plain.Inner()


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_python_3_module_called_like_one_of_python_2_is_not_renamed(protocol: int) -> None:
    data = b"\x80" + bytes([protocol]) + b"cQueue\nClass\n."
    assert parse(data).full_name == "Queue.Class"
    assert parse(emit(parse(data))).full_name == "Queue.Class"


def test_python_2_names_come_back_as_python_3_names() -> None:
    assert pickle.loads(again(b"\x80\x02c__builtin__\nxrange\nK\x03\x85R.")) == range(3)
    assert pickle.loads(again(pickle.dumps({1, 2}, 2))) == {1, 2}


def test_instances_of_protocols_0_and_1_survive() -> None:
    name = f"{__name__}\nPlain\n".encode()
    for data in (b"(i" + name + b"(dVa\nI5\nsb.", b"(c" + name + b"o}X\x01\x00\x00\x00aK\x05sb."):
        assert pickle.loads(data) == Plain(a=5)
        assert pickle.loads(again(data)) == Plain(a=5)


def storage(key: str = "0", location: str = "cpu", numel: int = 6) -> StorageRef:
    return StorageRef(Global("torch", "FloatStorage"), DTYPES["float32"], key, location, numel)


def tensor(of: StorageRef) -> TensorRef:
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    hooks = Call(Global("collections", "OrderedDict"), ())
    return TensorRef(rebuild, of, 0, (2, 3), (3, 1), (False, hooks), DTYPES["float32"])


def test_a_location_is_not_the_users_own_text() -> None:
    location = "cpu"
    device = location
    refs = parse(emit(Dict([("device", device), ("storage", storage(location=location))])))
    assert refs.pairs[0][1] == "cpu"
    assert type(refs.pairs[1][1]) is Persistent

    def to_cuda(ref: StorageRef | TensorRef) -> StorageRef | TensorRef:
        return storage(location="cuda:0") if isinstance(ref, StorageRef) else ref

    moved = parse(emit(Dict([("device", device), ("storage", storage(location=location))]), to_cuda))
    assert moved.pairs[0][1] == "cpu"
    assert moved.pairs[1][1].pid[3] == "cuda:0"


def test_equal_locations_are_written_once() -> None:
    data = emit([tensor(storage(str(number), "".join(["cuda", ":0"]))) for number in range(50)])
    assert data.count(b"cuda:0") == 1
    assert data.count(b"FloatStorage") == 1
    assert data.count(b"_rebuild_tensor_v2") == 1


def test_replacements_are_asked_for_once_and_written_as_they_are() -> None:
    small = tensor(storage("small", numel=6))
    asked = []

    def trim(ref: StorageRef | TensorRef) -> StorageRef | TensorRef:
        asked.append(ref)
        return small if isinstance(ref, TensorRef) else ref

    big = tensor(storage("big", numel=1000))
    root = parse(emit([big, big, big], trim))
    assert asked == [big]
    assert root[0] is root[1]
    assert root[0].args[0].pid[2] == "small"


def test_a_storage_of_an_unchanged_tensor_is_replaced() -> None:
    one = storage("a")

    def rename(ref: StorageRef | TensorRef) -> StorageRef | TensorRef:
        return storage("b") if ref is one else ref

    root = parse(emit([tensor(one), tensor(one), one], rename))
    assert [root[0].args[0].pid[2], root[1].args[0].pid[2], root[2].pid[2]] == ["b", "b", "b"]


def test_a_tensor_may_become_a_call() -> None:
    meta = Call(Global("torch._utils", "_rebuild_meta_tensor_no_storage"), (Global("torch", "float32"), (2, 3)))
    one = tensor(storage())
    root = parse(emit([one, one], lambda ref: meta if ref is one else ref))
    assert root[0] is root[1]
    assert root[0].function.name == "_rebuild_meta_tensor_no_storage"


def test_what_is_no_node_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="date"):
        emit([dt.date(2024, 1, 1)])


def test_a_name_with_a_line_break_is_never_written() -> None:
    with pytest.raises(TypeError):
        emit(Global("os\nsystem\n(S'x'\ntR", "x"))


def test_tuples_that_contain_each_other_without_end_are_refused() -> None:
    width = 6000
    lists: list[list[Any]] = [[] for _ in range(width)]
    knot = tuple(lists)
    for item in lists:
        item.append(knot)
    with pytest.raises(HostileCheckpoint) as refused:
        emit(knot)
    assert refused.value.rule == "cycles"


def test_trees_of_any_depth_are_written_without_recursion() -> None:
    node: Any = ()
    for _ in range(100_000):
        node = (node,)
    assert emit(node).startswith(b"\x80\x02)\x85\x85")


def test_the_bytes_follow_from_the_tree_alone() -> None:
    data = pickle.dumps({"a": [1.5, "x", Plain(a=1)], "b": {1, 2}})
    assert len({again(data) for _ in range(5)}) == 1
