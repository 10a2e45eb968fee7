"""The conformance suite of every PackStore. A backend's test file is a subclass with a fixture ``store``."""

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from app.errors import DamagedBlob, PackMissing, StoreError
from app.store import PackStore, StoredPack
from app.values.span import Span
from tests.support.measure import long, measure

PAGE = 4096
WORDS = bytes(range(251)) * 1045  # 256 KiB in which no page looks like another


def file_with(folder: Path, data: bytes, name: str = "upload") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def gathered(data: bytes, spans: Sequence[Span]) -> bytes:
    return b"".join(data[span.start : span.end] for span in spans)


def assert_is(store: PackStore, name: str, data: bytes) -> None:
    """The pack holds ``data`` and nothing after it."""
    assert store.read(name, Span(0, len(data))) == data
    with pytest.raises(DamagedBlob):
        store.read(name, Span(0, len(data) + 1))


class PackStoreConformance:
    def test_an_adopted_file_is_the_pack_and_is_gone_from_its_place(self, store: PackStore, tmp_path: Path):
        file = file_with(tmp_path, WORDS)
        store.adopt("pack1", file)
        assert not file.exists()
        assert_is(store, "pack1", WORDS)

    def test_a_created_pack_is_its_spans_one_after_another(self, store: PackStore, tmp_path: Path):
        file = file_with(tmp_path, WORDS)
        spans = [Span(300, 300), Span(5000, 9001), Span(7, 8), Span(0, 3), Span(7, 8)]
        store.create("pack1", file, spans)
        assert_is(store, "pack1", gathered(WORDS, spans))
        assert file.read_bytes() == WORDS

    def test_a_written_pack_is_its_buffers_one_after_another(self, store: PackStore):
        assert store.write("pack1", iter([WORDS, b"", memoryview(b"tail")])) == len(WORDS) + 4
        assert_is(store, "pack1", WORDS + b"tail")
        assert store.write("pack1", []) == 0
        assert_is(store, "pack1", b"")

    def test_buffers_are_asked_for_one_at_a_time(self, store: PackStore):
        asked: list[weakref.ref] = []

        class Piece(bytearray):
            pass

        def pieces() -> Iterator[bytearray]:
            for _ in range(10):
                gc.collect(1)  # not the old objects of thousands of tests
                assert sum(piece() is not None for piece in asked) <= 1
                piece = Piece(PAGE)
                asked.append(weakref.ref(piece))
                yield piece
                del piece

        assert store.write("pack1", pieces()) == 10 * PAGE

    def test_buffers_that_fail_make_no_pack_and_their_error_comes_out_as_it_is(self, store: PackStore):
        class Failed(Exception):
            pass

        def buffers() -> Iterator[bytes]:
            yield WORDS
            raise Failed

        with pytest.raises(Failed):
            store.write("pack1", buffers())
        with pytest.raises(PackMissing):
            store.read("pack1", Span(0, 0))
        assert list(store.walk()) == []

    def test_a_pack_knows_its_size_and_one_that_is_not_there_has_none(self, store: PackStore):
        store.write("pack1", [WORDS])
        assert store.size("pack1") == len(WORDS)
        with pytest.raises(PackMissing):
            store.size("pack2")

    def test_every_pack_is_listed(self, store: PackStore):
        assert list(store.walk()) == []
        for i in range(5):
            store.write(f"{i}pack", [bytes(i)])
        found = sorted(store.walk(), key=lambda pack: pack.name)
        assert found == [StoredPack(f"{i}pack", i, whole=True) for i in range(5)]

    @pytest.mark.parametrize("start", [0, 1, PAGE - 1, PAGE, PAGE + 1])
    @pytest.mark.parametrize("length", [0, 1, PAGE, 16 * PAGE + 1, 40 * PAGE])
    def test_a_read_is_exactly_its_span_wherever_pages_begin(
        self, store: PackStore, tmp_path: Path, start: int, length: int
    ):
        store.adopt("pack1", file_with(tmp_path, WORDS))
        view = store.read("pack1", Span(start, start + length))
        assert view.readonly
        assert view.nbytes == length
        assert view == WORDS[start : start + length]

    def test_bytes_outlive_their_pack_for_as_long_as_somebody_looks_at_them(self, store: PackStore, tmp_path: Path):
        store.adopt("pack1", file_with(tmp_path, WORDS))
        part = store.read("pack1", Span(100, 100_000))[500:600]
        store.delete("pack1")
        gc.collect(1)
        assert part == WORDS[600:700]

    def test_a_pack_that_is_not_there_is_missing_and_not_empty(self, store: PackStore):
        with pytest.raises(PackMissing):
            store.read("pack1", Span(0, 1))
        with pytest.raises(PackMissing):
            store.read("pack1", Span(0, 0))

    def test_a_deleted_pack_is_missing_and_deleting_it_again_is_no_error(self, store: PackStore, tmp_path: Path):
        store.adopt("pack1", file_with(tmp_path, WORDS))
        assert store.delete("pack1") == len(WORDS)
        assert store.delete("pack1") == 0
        with pytest.raises(PackMissing):
            store.read("pack1", Span(0, 1))

    def test_a_pack_shorter_than_the_span_is_damage(self, store: PackStore, tmp_path: Path):
        store.adopt("pack1", file_with(tmp_path, WORDS))
        with pytest.raises(DamagedBlob):
            store.read("pack1", Span(0, len(WORDS) + 1))
        with pytest.raises(DamagedBlob):
            store.read("pack1", Span(len(WORDS) - 1, len(WORDS) + 1))
        with pytest.raises(DamagedBlob):
            store.read("pack1", Span(len(WORDS) + PAGE, len(WORDS) + 2 * PAGE))

    def test_a_source_shorter_than_a_span_makes_no_pack(self, store: PackStore, tmp_path: Path):
        file = file_with(tmp_path, WORDS)
        with pytest.raises(StoreError):
            store.create("pack1", file, [Span(0, 10), Span(10, len(WORDS) + 1)])
        with pytest.raises(PackMissing):
            store.read("pack1", Span(0, 0))

    def test_a_source_that_is_not_there_makes_no_pack_and_no_error_names_it(self, store: PackStore, tmp_path: Path):
        gone = tmp_path / "gone"
        for attempt in (lambda: store.adopt("pack1", gone), lambda: store.create("pack1", gone, [Span(0, 1)])):
            with pytest.raises(StoreError) as caught:
                attempt()
            assert str(tmp_path) not in caught.value.detail
            with pytest.raises(PackMissing):
                store.read("pack1", Span(0, 0))

    @pytest.mark.parametrize("name", ["", "../x", "a/b", "abc.pack", "ABC", "a b c", "abc\n", "abc\0", "ábc", "x" * 65])
    def test_a_name_with_anything_but_letters_and_digits_touches_nothing(
        self, store: PackStore, tmp_path: Path, name: str
    ):
        file = file_with(tmp_path, WORDS)
        for attempt in (
            lambda: store.adopt(name, file),
            lambda: store.create(name, file, [Span(0, 1)]),
            lambda: store.read(name, Span(0, 1)),
            lambda: store.delete(name),
            lambda: store.size(name),
            lambda: store.write(name, [b"x"]),
        ):
            with pytest.raises(ValueError, match="not a pack name"):
                attempt()
        assert file.read_bytes() == WORDS

    def test_threads_write_and_read_packs_side_by_side(self, store: PackStore, tmp_path: Path):
        together = threading.Barrier(8)

        def roundtrip(number: int) -> bool:
            data = bytes([number]) * (PAGE + number)
            file = file_with(tmp_path, data, f"upload{number}")
            together.wait()
            store.adopt(f"pack{number}", file)
            return store.read(f"pack{number}", Span(0, len(data))) == data

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(roundtrip, range(8))) == [True] * 8

    def test_a_store_that_works_answers_a_ping(self, store: PackStore):
        store.ping()

    @long
    def test_any_sequence_of_calls_agrees_with_a_dict(self, store: PackStore, tmp_path: Path):
        names = st.sampled_from(["one", "two", "three"])
        bounds = st.tuples(st.integers(0, len(WORDS)), st.integers(0, len(WORDS)))
        spans = bounds.map(lambda pair: Span(min(pair), max(pair)))

        class AgainstADict(RuleBasedStateMachine):
            def __init__(self) -> None:
                super().__init__()
                self.packs: dict[str, bytes] = {}
                for name in ("one", "two", "three"):
                    store.delete(name)

            def new(self, name: str, data: bytes) -> None:
                """``name`` is about to be written; no pack is there then."""
                store.delete(name)
                self.packs[name] = data

            @rule(name=names, span=spans)
            def adopt(self, name: str, span: Span) -> None:
                self.new(name, gathered(WORDS, [span]))
                store.adopt(name, file_with(tmp_path, self.packs[name]))

            @rule(name=names, spans=st.lists(spans, max_size=5))
            def create(self, name: str, spans: list[Span]) -> None:
                self.new(name, gathered(WORDS, spans))
                store.create(name, file_with(tmp_path, WORDS), spans)

            @rule(name=names, spans=st.lists(spans, max_size=5))
            def write(self, name: str, spans: list[Span]) -> None:
                self.new(name, gathered(WORDS, spans))
                assert store.write(name, [WORDS[s.start : s.end] for s in spans]) == len(self.packs[name])

            @rule(name=names)
            def delete(self, name: str) -> None:
                assert store.delete(name) == len(self.packs.pop(name, b""))

            @rule()
            def walk(self) -> None:
                assert {pack.name: pack.size for pack in store.walk()} == {
                    name: len(data) for name, data in self.packs.items()
                }

            @rule(name=names, span=spans)
            def read(self, name: str, span: Span) -> None:
                if name not in self.packs:
                    with pytest.raises(PackMissing):
                        store.read(name, span)
                elif span.end > len(self.packs[name]) and span.length:
                    with pytest.raises(DamagedBlob):
                        store.read(name, span)
                else:
                    assert store.read(name, span) == gathered(self.packs[name], [span])

            @invariant()
            def packs_are_whole(self) -> None:
                for name, data in self.packs.items():
                    assert_is(store, name, data)

        run_state_machine_as_test(AgainstADict, settings=settings(max_examples=measure(8, 25), deadline=None))
