"""Pickles become inert nodes, or a refusal that says which rule is broken, and where."""

import collections
import pickle
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import HostileCheckpoint, NotACheckpoint, RefusedCheckpoint
from app.formats.pickle.emit import emit
from app.formats.pickle.limits import Limits
from app.formats.pickle.machine import InertHooks, parse
from app.formats.pickle.nodes import Call, Dict, Global, Persistent, Set
from tests.support.measure import examples, long, measure

PROTOCOLS = range(6)


def refusal(data: bytes, **options: Any) -> RefusedCheckpoint:
    with pytest.raises(RefusedCheckpoint) as refused:
        parse(data, **options)
    assert refused.value.where is not None
    assert refused.value.where.startswith("data.pkl")
    return refused.value


def rule(data: bytes, **options: Any) -> str | None:
    error = refusal(data, **options)
    assert isinstance(error, HostileCheckpoint)
    return error.rule


def assert_parsed_or_refused(data: bytes) -> None:
    refused = None
    try:
        parse(data)
    except RefusedCheckpoint as error:
        refused = error
    assert refused is None or (refused.rule and refused.where)


INERT = [
    *(None, True, False, 0, 1, -1, 255, 256, 65535, 65536, -(2**31), 2**31, 2**100, -(2**100)),
    *(0.0, -1.5, float("inf"), 1e300, "", "text", "\ud800", "\x00\n'\\", "ü€😀"),
    *((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1], [[], [2]]),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", INERT)
def test_inert_values_come_out_as_they_are(value: Any, protocol: int) -> None:
    parsed = parse(pickle.dumps(value, protocol))
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("value", [b"", b"bytes", b"x" * 300])
def test_bytes_come_out_as_they_are(value: bytes, protocol: int) -> None:
    assert parse(pickle.dumps(value, protocol)) == value


def test_bytearrays_of_protocol_5_come_out_as_they_are() -> None:
    parsed = parse(pickle.dumps(bytearray(b"abc"), 5))
    assert type(parsed) is bytearray
    assert parsed == b"abc"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_dicts_are_pairs_in_order(protocol: int) -> None:
    parsed = parse(pickle.dumps({"b": 1, "a": {2: ()}}, protocol))
    assert type(parsed) is Dict
    assert parsed.pairs[0] == ("b", 1)
    assert parsed.pairs[1][1].pairs == [(2, ())]


def test_a_dicts_second_pair_with_a_key_is_kept_too() -> None:
    assert parse(b"}(K\x01K\x02K\x01K\x03u.").pairs == [(1, 2), (1, 3)]


def test_keys_are_never_hashed() -> None:
    """A number of 2^61 - 1 and many like it have one hash: as keys of a dict they would take hours."""
    many = b"".join(b"\x8a\x10" + (n * (2**61 - 1)).to_bytes(16, "little") + b"N" for n in range(100_000))
    assert len(parse(b"}(" + many + b"u.").pairs) == 100_000


@pytest.mark.parametrize("frozen", [False, True])
def test_sets_are_lists_of_items(*, frozen: bool) -> None:
    parsed = parse(pickle.dumps(frozenset({1}) if frozen else {1}, 4))
    assert type(parsed) is Set
    assert (parsed.items, parsed.frozen) == ([1], frozen)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_name_is_only_written_down(protocol: int) -> None:
    parsed = parse(pickle.dumps(collections.OrderedDict, protocol))
    assert type(parsed) is Global
    assert parsed.full_name == "collections.OrderedDict"


@pytest.mark.parametrize(
    ("python2", "python3"),
    [
        ("__builtin__\nset", "builtins.set"),
        ("copy_reg\n_reconstructor", "copyreg._reconstructor"),
        ("__builtin__\nxrange", "builtins.range"),
        ("__builtin__\nunicode", "builtins.str"),
        ("exceptions\nValueError", "builtins.ValueError"),
        ("exceptions\nset", "exceptions.set"),
        ("commands\ngetoutput", "subprocess.getoutput"),
        ("httplib\nHTTPConnection", "http.client.HTTPConnection"),
        ("collections\nOrderedDict", "collections.OrderedDict"),
    ],
)
def test_python_2_names_are_told_in_python_3s(python2: str, python3: str) -> None:
    assert parse(f"c{python2}\n.".encode()).full_name == python3
    assert parse(b"\x80\x03" + f"c{python2}\n.".encode()).full_name == python2.replace("\n", ".")


@pytest.mark.parametrize("name", ["commands\ngetoutput", "dbm\nwhichdb", "__builtin__\neval", "my.commands\nf"])
def test_a_name_that_is_none_of_python_2s_is_not_taken_for_one_when_written_again(name: str) -> None:
    """Protocol 4 says ``dbm`` and means it; in a pickle of protocol 2 the same would be ``dbm.ndbm``."""
    once = parse(b"\x80\x04" + f"c{name}\n.".encode())
    assert parse(emit(once)).full_name == once.full_name


def test_a_name_is_one_node_however_often_it_is_named() -> None:
    first, second = parse(b"(cos\nsystem\ncos\nsystem\nl.")
    assert first is second


def test_a_call_is_written_down_with_all_that_was_done_to_its_result() -> None:
    call = parse(b"cm\nf\n(K\x01tR(K\x02K\x03eK\x04K\x05sK\x06bK\x07b.")
    assert type(call) is Call
    assert (call.function.full_name, call.args, call.how) == ("m.f", (1,), "reduce")
    assert (call.items, call.pairs, call.states) == ([2, 3], [(4, 5)], [6, 7])


@pytest.mark.parametrize(
    ("data", "how", "kwargs"),
    [
        (b"cm\nC\nK\x01\x85\x81.", "newobj", None),
        (b"cm\nC\nK\x01\x85}\x92.", "newobj_ex", Dict),
        (b"(cm\nC\nK\x01o.", "obj", None),
        (b"(K\x01im\nC\n.", "obj", None),
    ],
)
def test_instances_are_written_down_as_calls(data: bytes, how: str, kwargs: type | None) -> None:
    call = parse(data)
    assert (call.function.full_name, call.args, call.how) == ("m.C", (1,), how)
    assert call.kwargs is None if kwargs is None else type(call.kwargs) is kwargs


def test_persistent_ids_and_calls_go_through_the_hooks() -> None:
    class Hooks(InertHooks):
        def __init__(self) -> None:
            self.builders = {"m.f": lambda function, args: ("built", function.full_name, args)}
            self.heard: list[tuple[str, str | None]] = []

        def named(self, name: Global, near: str | None) -> None:
            self.heard.append((name.full_name, near))

        def persistent(self, pid: Any) -> Any:
            return ("persistent", pid)

    hooks = Hooks()
    data = b"}X\x03\x00\x00\x00keycm\nf\nK\x01Q\x85Rs."
    assert parse(data, hooks).pairs == [("key", ("built", "m.f", (("persistent", 1),)))]
    assert hooks.heard == [("m.f", "key")]
    assert type(parse(b"Ptext\n.")) is Persistent


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shared_values_are_one_node_and_cycles_close(protocol: int) -> None:
    shared: list[Any] = []
    shared.append(shared)
    parsed = parse(pickle.dumps([shared, shared], protocol))
    assert parsed[0] is parsed[1]
    assert parsed[0][0] is parsed[0]


def test_python_2_strings_are_text_where_they_are_utf_8_and_else_bytes() -> None:
    assert parse(b"U\x02\xc3\xbc.") == "ü"
    assert parse(b"S'a\\nb'\n.") == "a\nb"
    assert parse(b"T\x02\x00\x00\x00\xff\xfe.") == b"\xff\xfe"


def test_memo_slots_may_have_any_number_without_costing_more() -> None:
    assert parse(b"]r\xff\xff\xff\xff0j\xff\xff\xff\xff.") == []
    assert parse(b"]p4294967295\n0g4294967295\n.") == []
    assert parse(b"K\x05q\x020K\x06q\x000K\x07q\x010h\x02h\x00h\x01\x87.") == (5, 6, 7)
    assert parse(b"K\x05q\x010K\x06q\x000K\x07\x940h\x02h\x00h\x01\x87.") == (7, 6, 5)


@pytest.mark.parametrize(
    ("data", "broken"),
    [
        (b"K\x01\x85\x86.", "stack-underflow"),
        (b"(K\x01R(((((((.", "stack-underflow"),
        (b"(ttttttttttt.", "stack-underflow"),
        (b"h\x00....", "memo-unknown"),
        (b"j\xff\xff\xff\xff.", "memo-unknown"),
        (b"g-1\n.", "memo-unknown"),
        (b"Np4294967296\n.", "memo-index"),
        (b"Np-1\n.", "memo-index"),
        (b"X\x02\x00\x00\x00\xff\xfe.", "utf-8"),
        (b"Inone\n.", "value"),
        (b"Snone\n.", "value"),
        (b"L" + b"9" * 5000 + b"L\n.", "value"),
        (b"X\xff\xff\xff\xffabc.", "length"),
        (b"\x8b\xff\xff\xff\x7f\x01.", "length"),
        (b"\x8b\xff\xff\xff\xff\x01.", "length"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "length"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "length"),
        (b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "length"),
        (b"\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.", "length"),
        (b"cos", "length"),
        (b"NN.", "stack-left"),
        (b"(N.", "stack-left"),
        (b"N.N.", "trailing-bytes"),
        (b"N.\x00", "trailing-bytes"),
        (b"\x82\x01.", "extension"),
        (b"\x83\x01\x00.", "extension"),
        (b"\x84\x01\x00\x00\x00.", "extension"),
        (b"\x97.", "buffer"),
        (b"N\x98.", "buffer"),
        (b"NK\x01a.", "append"),
        (b"N(K\x01e.", "append"),
        (b"NK\x01K\x02s.", "setitem"),
        (b"}(K\x01u.", "setitem"),
        (b"(K\x01d.", "setitem"),
        (b"N(K\x01\x90.", "additems"),
        (b"(K\x01\x91(K\x02\x90.", "additems"),
        (b"]}b.", "build"),
        (b"N)R.", "not-callable"),
        (b"X\x01\x00\x00\x00f)R.", "not-callable"),
        (b"cm\nf\n]R.", "arguments"),
        (b"X\x01\x00\x00\x00mN\x93.", "global-name"),
        (b"X\x01\x00\x00\x00mX\x03\x00\x00\x00a\nb\x93.", "global-name"),
    ],
)
def test_a_broken_rule_is_named(data: bytes, broken: str) -> None:
    assert rule(data) == broken


@pytest.mark.parametrize(
    ("data", "broken"),
    [
        (b"", "truncated"),
        (b"\x80", "truncated"),
        (b"\x80\x02", "truncated"),
        (b"\x80\x02}", "truncated"),
        (b"J\x00", "truncated"),
        (b"G\x00", "truncated"),
        (b"X\x00", "truncated"),
        (b"r\x00", "truncated"),
        (b"\x80\x06N.", "protocol"),
        (b"\x80\xffN.", "protocol"),
        (b"\x00", "opcode"),
        (b"<html>", "opcode"),
    ],
)
def test_what_is_no_pickle_is_no_checkpoint(data: bytes, broken: str) -> None:
    error = refusal(data)
    assert isinstance(error, NotACheckpoint)
    assert error.rule == broken


def test_the_record_is_named_as_the_caller_names_it() -> None:
    with pytest.raises(NotACheckpoint) as refused:
        parse(b"}", record="skeleton")
    assert refused.value.where == "skeleton, byte 1"


def test_nesting_up_to_the_limit_is_read_and_one_more_is_refused() -> None:
    limits = Limits(nesting=5)
    assert parse(b")" + b"\x85" * 4 + b".", limits=limits) == (((((),),),),)
    assert rule(b")" + b"\x85" * 5 + b".", limits=limits) == "nesting"


@pytest.mark.parametrize(
    "wrap",
    [b"\x85", b"q\x000]h\x00a", b"q\x000}Nh\x00s", b"q\x000cm\nC\n)\x81h\x00b", b"q\x000(h\x00\x91"],
)
def test_every_kind_of_container_counts_as_nesting(wrap: bytes) -> None:
    limits = Limits(nesting=50)
    assert parse(b")" + wrap * 20 + b".", limits=limits) is not None
    assert rule(b")" + wrap * 50 + b".", limits=limits) == "nesting"


@long
def test_a_million_nested_values_are_refused_and_not_recursed_into() -> None:
    depth = measure(200_000, 1_000_000)
    assert rule(b"]" * depth + b"a" * (depth - 1) + b".") == "nesting"
    assert rule(b")" + b"\x85" * depth + b".") == "nesting"


def test_nesting_is_found_whichever_way_leads_there_first() -> None:
    chain = b"".join(b"]q" + bytes([n]) + b"h" + bytes([n - 1]) + b"a0" for n in range(1, 100))
    both_ways = b"(" + b"".join(b"h" + bytes([n]) for n in range(100)) + b"l."
    limits = Limits(nesting=50)
    assert rule(b"]q\x000" + chain + both_ways, limits=limits) == "nesting"


def test_a_cycle_is_not_deep() -> None:
    assert parse(b"]q\x00(" + b"h\x00" * 5000 + b"e.", limits=Limits(nesting=2)) is not None


def many_puts(count: int, step: int) -> bytes:
    return b"N" + b"".join(b"r" + struct.pack("<I", number * step) for number in range(count)) + b"."


@pytest.mark.parametrize(
    ("broken", "limits", "make"),
    [
        ("opcodes", Limits(opcodes=20), lambda more: b"N0" * 9 + b"N" + b"0N" * more + b"."),
        ("pickle-size", Limits(nbytes=20), lambda more: b"N0" * 9 + b"N" + b"0N" * more + b"."),
        ("memo-slots", Limits(memo_slots=10), lambda more: b"N" + b"\x94" * (10 + more) + b"."),
        ("memo-slots", Limits(memo_slots=10), lambda more: many_puts(10 + more, step=1)),
        ("memo-slots", Limits(memo_slots=10), lambda more: many_puts(10 + more, step=77)),
    ],
)
def test_each_limit_is_reached_and_not_passed(broken: str, limits: Limits, make: Callable[[int], bytes]) -> None:
    assert parse(make(0), limits=limits) is None
    assert rule(make(1), limits=limits) == broken


@examples(500)
@given(st.binary(max_size=60))
@example(b"(((((t")
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    assert_parsed_or_refused(data)


@examples(300)
@given(st.data())
def test_any_damaged_pickle_is_parsed_or_refused(data: st.DataObject) -> None:
    protocol = data.draw(st.sampled_from(PROTOCOLS))
    whole = pickle.dumps([{"a": (1, 2.5, "x" * 10)}, collections.OrderedDict(b=2**70), {3, 4}, b"raw"], protocol)
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + data.draw(st.binary(max_size=4)) + whole[at + data.draw(st.integers(0, 3)) :]
    assert_parsed_or_refused(damaged)


@examples(200)
@given(st.integers(min_value=0), st.sampled_from(PROTOCOLS))
def test_a_truncated_pickle_is_refused_wherever_it_is_cut(cut: int, protocol: int) -> None:
    whole = pickle.dumps({"model": [1.5, "text", (2**40, None)]}, protocol)
    refusal(whole[: cut % len(whole)])


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "x" * 4097], ids=["two-lines", "surrogate", "long"])
def test_a_name_that_could_not_be_written_again_is_refused(name):
    text = name.encode("utf-8", "surrogatepass")
    pickled = b"\x80\x04X\x01\0\0\0mX" + struct.pack("<I", len(text)) + text + b"\x93."
    with pytest.raises(HostileCheckpoint) as refused:
        parse(pickled)
    assert refused.value.rule == "global-name"
