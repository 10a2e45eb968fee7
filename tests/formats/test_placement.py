"""The bytes of a storage that are sent; tensors that shared bytes still share them."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.formats.pickle.nodes import Global, StorageRef, TensorRef
from app.formats.placement import extent, islands_of, trimmed, whole
from app.values.dtype import DTYPES
from app.values.manifest import Storage
from app.values.span import Span

FLOAT = DTYPES["float32"]


def storage(numel: int, key: str = "0") -> tuple[StorageRef, dict[str, Storage]]:
    ref = StorageRef(Global("torch", "FloatStorage"), FLOAT, key, "cuda:3", numel)
    return ref, {key: Storage(key, "cuda:3", FLOAT, Span(1000, 1000 + 4 * numel))}


def view(ref: StorageRef, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> TensorRef:
    return TensorRef(Global("torch._utils", "_rebuild_tensor_v2"), ref, offset, shape, stride, (False, None), FLOAT)


@given(st.integers(0, 40), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=3))
def test_an_extent_is_from_the_first_to_the_last_byte_a_tensor_can_reach(offset, dims):
    ref, _ = storage(1000)
    tensor = view(ref, offset, tuple(n for n, _ in dims), tuple(s for _, s in dims))
    reached = [offset]
    for size, stride in dims:
        reached = [r + i * stride for r in reached for i in range(size)]
    start, end = extent(tensor)
    assert (start, end) == ((min(reached) * 4, max(reached) * 4 + 4) if reached else (0, 0))


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 400)), min_size=1, max_size=20))
def test_islands_hold_every_extent_and_little_else(extents):
    spans = [(4 * start, 4 * (start + length)) for start, length in extents]
    size = 4 * 6000
    islands = islands_of(spans, size)
    assert islands == sorted(islands)
    assert all(a.end <= b.start for a, b in pairwise(islands))
    for start, end in spans:
        assert any(island.start <= start and end <= island.end for island in islands)
    wanted = set().union(*(range(start, end) for start, end in spans))
    carried = sum(island.length for island in islands)
    assert carried <= len(wanted) * (1 + 1 / 32) + 16 * len(islands)


def test_a_small_view_does_not_drag_its_storage_along():
    ref, storages = storage(1_000_000)
    tensor = view(ref, 500_000, (10,), (1,))
    layout = trimmed([tensor], storages, None)
    placed = layout.replace(tensor)
    assert [cut.file_span for cut in layout.cuts] == [Span(1000 + 2_000_000, 1000 + 2_000_040)]
    assert (placed.offset, placed.storage.numel, placed.storage.key) == (0, 10, "0")


def test_views_that_overlap_still_share_a_storage():
    ref, storages = storage(1_000_000)
    a, b, c = view(ref, 1000, (100,), (1,)), view(ref, 1050, (100,), (1,)), view(ref, 900_000, (1,), (1,))
    layout = trimmed([a, b, c], storages, None)
    placed = [layout.replace(tensor) for tensor in (a, b, c)]
    assert placed[0].storage is placed[1].storage
    assert placed[2].storage is not placed[0].storage
    assert [p.offset for p in placed] == [0, 50, 0]


def test_a_storage_that_is_named_by_itself_stays_whole():
    ref, storages = storage(1_000)
    tensor = view(ref, 10, (1,), (1,))
    layout = trimmed([tensor, ref], storages, None)
    assert layout.replace(tensor).storage is layout.replace(ref)
    assert layout.cuts[0].is_whole


def test_a_whole_layout_changes_nothing_but_the_device():
    ref, storages = storage(1_000)
    tensor = view(ref, 10, (3,), (2,))
    placed = whole(storages, "cpu").replace(tensor)
    assert (placed.offset, placed.storage.numel, placed.storage.location) == (10, 1000, "cpu")
    assert whole(storages, None).replace(tensor).storage.location == "cuda:3"


def test_meta_has_no_storage_at_all():
    ref, storages = storage(1_000)
    layout = trimmed([view(ref, 0, (2, 3), (3, 1))], storages, "meta")
    placed = layout.replace(view(ref, 0, (2, 3), (3, 1)))
    assert placed.function.full_name == "torch._utils._rebuild_meta_tensor_no_storage"
    assert placed.args[1:] == ((2, 3), (3, 1), False)
    assert layout.cuts == []
