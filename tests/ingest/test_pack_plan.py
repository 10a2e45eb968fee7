"""Plans are checked by carrying them out on bytes in memory."""

from collections.abc import Collection, Sequence

from hypothesis import given
from hypothesis import strategies as st

from app.ingest.pack_plan import FoundBlob, PackPlan, plan_adoption, plan_copy, plan_pack
from app.store.digests import crc32, digest_of
from app.values.digest import Digest
from app.values.span import Span

MIB = 1024 * 1024


def found(file: bytes, *spans: Span) -> FoundBlob:
    data = b"".join(file[span.start : span.end] for span in spans)
    digest, blocks = digest_of(data)
    return FoundBlob(digest, spans, crc32(data), blocks)


def carried_out(plan: PackPlan, file: bytes) -> bytes:
    copied = b"".join(file[span.start : span.end] for span in plan.spans)
    return file + copied if plan.adopt else copied


def assert_holds(plan: PackPlan, file: bytes, expected: Collection[Digest]) -> None:
    pack = carried_out(plan, file)
    assert len(pack) == plan.size
    for blob in plan.blobs:
        assert blob.pack == plan.name
        data = pack[blob.offset : blob.offset + blob.length]
        assert digest_of(data) == (blob.digest, blob.blocks)
        assert crc32(data) == blob.crc32
    assert sorted(blob.digest for blob in plan.blobs) == sorted(expected)


@st.composite
def uploads(draw: st.DrawFn) -> tuple[bytes, list[FoundBlob], set[Digest]]:
    """A file made of storages between pieces of frame, its blobs, and which of those are known."""
    sizes = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 50)), max_size=8))
    letters = draw(st.lists(st.sampled_from(b"xyz"), min_size=len(sizes), max_size=len(sizes)))
    scale = draw(st.sampled_from([1, 20_000]))
    file, blobs, frame = b"", [], []
    for (gap, length), letter in zip(sizes, letters, strict=True):
        if gap:
            frame.append(Span(len(file), len(file) + gap))
            file += b"f" * gap
        blobs.append((len(file), len(file) + length * scale))
        file += bytes([letter]) * (length * scale)
    everything = [*(found(file, Span(*blob)) for blob in blobs), found(file, *frame)]
    file += b"manifest"
    everything.append(found(file, Span(len(file) - 8, len(file))))
    known = draw(st.sets(st.sampled_from([blob.digest for blob in everything])))
    return file, everything, known


@given(uploads())
def test_a_plan_stores_exactly_what_is_new(upload: tuple[bytes, list[FoundBlob], set[Digest]]):
    file, blobs, known = upload
    new = {blob.digest for blob in blobs} - known
    plan = plan_pack("pack", len(file), blobs, known)
    if plan is None:
        assert not new
    else:
        assert_holds(plan, file, new)


@given(uploads())
def test_what_is_stored_in_vain_is_at_most_a_mebibyte_or_a_twentieth(
    upload: tuple[bytes, list[FoundBlob], set[Digest]],
):
    file, blobs, known = upload
    plan = plan_pack("pack", len(file), blobs, known)
    if plan is not None:
        wasted = plan.size - sum(blob.length for blob in plan.blobs)
        assert wasted <= (max(MIB, len(file) / 20) if plan.adopt else 0)


@given(uploads())
def test_an_upload_that_was_adopted_holds_whatever_turns_out_to_be_missing(
    upload: tuple[bytes, list[FoundBlob], set[Digest]],
):
    file, blobs, known = upload
    first = plan_adoption("pack", len(file), blobs, known)
    second = plan_adoption("pack", len(file), blobs, set())
    assert carried_out(second, file) == carried_out(first, file)
    assert_holds(second, file, {blob.digest for blob in blobs})


def sized(length: int, start: int, name: str) -> FoundBlob:
    return FoundBlob(Digest(name), (Span(start, start + length),), 0, b"")


def adopts(size: int, blobs: Sequence[FoundBlob], known: set[str]) -> bool:
    plan = plan_pack("pack", size, blobs, known)
    assert plan is not None
    return plan.adopt


def test_up_to_a_mebibyte_of_known_bytes_an_upload_is_kept_whole():
    for known, adopted in ((MIB, True), (MIB + 1, False)):
        assert adopts(4 * MIB, [sized(known, 0, "old"), sized(4 * MIB - known, known, "new")], {"old"}) is adopted


def test_up_to_a_twentieth_of_known_bytes_an_upload_is_kept_whole():
    for known, adopted in ((5 * MIB, True), (5 * MIB + 1, False)):
        assert adopts(100 * MIB, [sized(known, 0, "old"), sized(100 * MIB - known, known, "new")], {"old"}) is adopted


def test_bytes_that_are_twice_in_one_upload_are_stored_once():
    size = 10 * MIB
    blobs = [sized(size // 2, 0, "same"), sized(size // 2, size // 2, "same")]
    plan = plan_pack("pack", size, blobs, set())
    assert plan is not None
    assert (plan.size, len(plan.blobs)) == (size // 2, 1)


def test_a_large_frame_is_not_stored_twice():
    size = 10 * MIB
    frame = FoundBlob(Digest("frame"), (Span(0, 5 * MIB), Span(6 * MIB, size)), 0, b"")
    plan = plan_pack("pack", size, [sized(MIB, 5 * MIB, "new"), frame], set())
    assert plan is not None
    assert plan.size == size


def test_a_copy_of_nothing_new_is_no_pack():
    assert plan_copy("pack", [sized(5, 0, "old")], {"old"}) is None
