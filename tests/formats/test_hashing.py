"""Keys and items that Python cannot hash are refused, but no pickle that Python unpickles. Python is the judge."""

import pickle

import pytest

from app.errors import HostileCheckpoint
from app.formats.pickle.hashing import is_hashable
from app.formats.pickle.machine import parse
from app.formats.pickle.nodes import Call, Dict, Global, Set, StorageRef
from app.values.work import Work

KEYS = {
    "None": b"N",
    "a number": b"K\x01",
    "a float": b"G" + bytes(8),
    "text": b"X\x01\0\0\0a",
    "bytes": b"C\x01a",
    "a tuple": b"K\x01N\x86",
    "tuples in a tuple": b"(K\x01)N\x85\x85t",
    "a class": b"cbuiltins\nint\n",
    "a complex number": b"cbuiltins\ncomplex\nK\x01K\x02\x86R",
    "a frozenset": b"(K\x01\x91",
    "a frozenset of protocol 2": b"cbuiltins\nfrozenset\n](K\x01e\x85R",
    "an instance": b"cargparse\nNamespace\n)R0cbuiltins\nobject\n)R",
    "a list": b"]",
    "a dict": b"}",
    "a DICT": b"(d",
    "a set": b"\x8f",
    "a set of protocol 2": b"cbuiltins\nset\n]\x85R",
    "a bytearray": b"\x96" + bytes(8),
    "a bytearray of protocol 2": b"cbuiltins\nbytearray\n)R",
    "an OrderedDict": b"ccollections\nOrderedDict\n)R",
    "a new OrderedDict": b"ccollections\nOrderedDict\n)\x81",
    "a Counter": b"ccollections\nCounter\n}\x85R",
    "a defaultdict": b"ccollections\ndefaultdict\ncbuiltins\nlist\n\x85R",
    "a deque": b"ccollections\ndeque\n)R",
    "a list in a tuple": b"K\x01]\x86",
    "a dict in tuples": b"K\x01(KK}Nt\x85\x86",
}
HOLDERS = {
    "SETITEM": b"}%sNs",
    "SETITEMS": b"}(K\x07N%sNu",
    "DICT": b"(%sNd",
    "an OrderedDict": b"ccollections\nOrderedDict\n)R%sNs",
    "a new OrderedDict": b"ccollections\nOrderedDict\n)\x81%sNs",
    "pairs of an OrderedDict": b"ccollections\nOrderedDict\n](](%sNee\x85R",
    "a pair in a tuple": b"ccollections\nOrderedDict\n%sN\x86\x85\x85R",
    "a defaultdict": b"ccollections\ndefaultdict\ncbuiltins\nint\n\x85R(%sNu",
    "pairs of a defaultdict": b"ccollections\ndefaultdict\ncbuiltins\nint\n](%sN\x86e\x86R",
    "a Counter": b"ccollections\nCounter\n}\x85R%sNs",
    "items of a Counter": b"ccollections\nCounter\n](%se\x85R",
    "a set": b"\x8f(%s\x90",
    "a set of protocol 2": b"cbuiltins\nset\n](%se\x85R",
    "a set of a tuple": b"cbuiltins\nset\n%s\x85\x85R",
    "a frozenset": b"(%s\x91",
    "a frozenset of protocol 2": b"cbuiltins\nfrozenset\n](%se\x85R",
    "a list": b"]%sa",
    "a value": b"}N%ss",
    "a dict that is dropped": b"}%sNs0N",
    "a list that comes to have it later": b"]q\x01cbuiltins\nset\nh\x01\x85R\x86h\x01%sa0",
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_python_cannot_hash_is_refused_and_nothing_else(holder: str) -> None:
    for key, snippet in KEYS.items():
        data = b"\x80\x04" + HOLDERS[holder] % snippet + b"."
        expected, refusal = unhashable_to_python(data), unhashable_to_us(data)
        assert (expected is None) == (refusal is None), key
        if expected is not None and refusal is not None:
            assert "unhashable" in str(expected), key
            assert (refusal.rule, str(refusal.where)[:15]) == ("unhashable", "data.pkl, byte "), key
            assert "cannot hash" in str(refusal), key


def unhashable_to_python(data: bytes) -> TypeError | None:
    try:
        pickle.loads(data)
    except TypeError as error:
        return error
    return None


def unhashable_to_us(data: bytes) -> HostileCheckpoint | None:
    try:
        parse(data)
    except HostileCheckpoint as refusal:
        return refusal
    return None


def test_both_happen() -> None:
    can = {key for key, snippet in KEYS.items() if _python_reads(HOLDERS["SETITEM"] % snippet)}
    assert 8 < len(can) < len(KEYS) - 8


def _python_reads(snippet: bytes) -> bool:
    try:
        pickle.loads(b"\x80\x04" + snippet + b".")
    except TypeError:
        return False
    return True


def test_a_mapping_of_someones_own_may_have_any_key() -> None:
    parse(b"\x80\x02cmy\nMapping\n)R]Ns.")


def test_tensors_and_storages_are_hashed_by_what_they_are() -> None:
    cpu = StorageRef(Global("torch", "FloatStorage"), None, "0", "cpu", 8)
    tensor = Call(Global("torch._utils", "_rebuild_parameter"), (cpu, True, None))
    assert is_hashable(cpu, Work())
    assert is_hashable(tensor, Work())
    assert is_hashable((tensor, Set([], frozen=True)), Work())
    assert not is_hashable((tensor, Set([])), Work())
    assert not is_hashable(((Dict(),),), Work())


@pytest.mark.parametrize("holder", [b"}h\xc8Ns", b"cbuiltins\nset\n(h\xc8t\x85R"])
def test_tuples_that_share_each_other_are_not_looked_at_forever(holder: bytes) -> None:
    laughs = b")" + b"".join(b"q%bh%b\x86" % (bytes([n]), bytes([n])) for n in range(200))
    with pytest.raises(HostileCheckpoint) as refused:
        parse(b"\x80\x02" + laughs + b"q\xc80" + holder + b".")
    assert refused.value.rule == "too-much-work"


def test_one_long_tuple_is_not_looked_at_again_and_again() -> None:
    tuple_ = b"(" + b"N" * 10_000 + b"tq\0"
    with pytest.raises(HostileCheckpoint) as refused:
        parse(b"\x80\x02" + tuple_ + b"0}" + b"h\0Ns" * 10_000 + b".")
    assert refused.value.rule == "too-much-work"
