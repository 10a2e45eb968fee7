"""Virtual files against the plain bytes they stand for."""

from hypothesis import given
from hypothesis import strategies as st

from app.values.span import Span
from app.values.virtual_file import VirtualFile

SOURCE = bytes(range(256)) * 4

literals = st.binary(max_size=20)
spans = st.tuples(st.integers(0, len(SOURCE)), st.integers(0, 60)).map(
    lambda pair: Span(pair[0], min(pair[0] + pair[1], len(SOURCE)))
)


def build(parts) -> tuple[VirtualFile, bytes]:
    file, plain = VirtualFile(), b""
    for part in parts:
        if isinstance(part, Span):
            file.add_span(part)
            plain += SOURCE[part.start : part.end]
        else:
            file.add_literal(part)
            plain += part
    return file, plain


def read(file: VirtualFile, start: int, end: int | None) -> bytes:
    pieces = file.pieces(start, end)
    return b"".join(SOURCE[p.start : p.end] if isinstance(p, Span) else bytes(p) for p in pieces)


@given(st.lists(st.one_of(literals, spans), max_size=12), st.integers(0, 300), st.integers(0, 300))
def test_any_range_of_a_virtual_file_is_that_range_of_its_bytes(parts, a, b):
    file, plain = build(parts)
    assert file.size == len(plain)
    assert read(file, 0, None) == plain
    start, end = min(a, b), max(a, b)
    assert read(file, start, end) == plain[start:end]


def test_neighbours_become_one_piece():
    file, _ = build([b"a", b"b", Span(0, 4), Span(4, 9), Span(20, 21), b"c"])
    assert [p if isinstance(p, Span) else bytes(p) for p in file.pieces()] == [b"ab", Span(0, 9), Span(20, 21), b"c"]


def test_a_checksum_is_filled_in_wherever_it_stands():
    directory = VirtualFile()
    directory.add_literal(b"dir")
    directory.add_checksum(Span(0, 4))
    file, _ = build([b"x", Span(0, 4)])
    file.add_checksum(Span(0, 4))
    file.extend(directory)
    filled = file.filled({Span(0, 4): 0x01020304})
    assert read(filled, 0, None) == b"x" + SOURCE[:4] + b"\4\3\2\1" + b"dir" + b"\4\3\2\1"
    assert read(file, 0, None) == b"x" + SOURCE[:4] + bytes(4) + b"dir" + bytes(4)
