"""Compaction: the choice of packs, and that nothing is lost on the way whatever happens."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog import Catalog, moves, packs, unused
from app.catalog.trash import delete_checkpoint
from app.catalog.unused import Moment, PackUse
from app.deliver.service import Deliver
from app.errors import PackMissing
from app.store import LocalPackStore
from app.upkeep.compact import MOSTLY_DEAD, SHARED_BYTES, SHARED_PACKS, WORTH_BYTES, plan_compaction
from app.values.checkpoint import ModelName
from app.values.span import Span
from tests.ingest.workplace import MIB, MODEL, Workplace, torch_file, weights
from tests.store.devices import mounted_tmpfs
from tests.support.measure import long, measure
from tests.upkeep.sweeping import check, delete, foresee_now, sweep_now

SIZES = st.integers(0, 2 * SHARED_BYTES)
USES = st.lists(
    st.tuples(SIZES, SIZES).map(lambda pair: PackUse(0, "p", max(pair), min(pair), ("vision",))), max_size=50
)


@given(USES)
def test_a_plan_copies_less_than_it_frees_and_no_new_pack_grows_without_bound(uses: list[PackUse]):
    for group in plan_compaction(uses):
        live, freed = sum(use.live for use in group), sum(use.size - use.live for use in group)
        assert live < freed
        assert freed >= WORTH_BYTES
        assert len(group) == 1 or (live <= SHARED_BYTES and len(group) <= SHARED_PACKS)
        assert all(0 < use.live < use.size * MOSTLY_DEAD for use in group)


@given(USES, SIZES)
def test_no_new_pack_is_larger_than_there_is_room_for(uses: list[PackUse], room: int):
    groups = plan_compaction(uses, room)
    assert all(sum(use.live for use in group) <= room for group in groups)
    if uses and room >= sum(use.live for use in uses):
        assert groups == plan_compaction(uses)


def test_what_is_hardly_worth_it_stays_until_several_come_together():
    small = PackUse(1, "small", 300_000, 1_000, ("vision",))
    assert plan_compaction([small] * 3) == []
    assert plan_compaction([small] * 4) == [(small,) * 4]


def mostly_dead(place: Workplace, seed: int, model: ModelName = MODEL) -> tuple:
    """A pack of 4 MiB of which 1 MiB is what a later checkpoint shares."""
    shared = weights(seed)
    first = place.upload(torch_file({"shared": shared, "a": weights(seed + 1, 3)}), model)
    data = torch_file({"shared": shared})
    kept = place.upload(data, model)
    with place.catalog.write() as w:
        delete_checkpoint(w, model, first.version)
    return kept, data


def test_the_live_part_of_several_packs_moves_to_one_and_the_rest_is_free(place: Workplace):
    kept = [mostly_dead(place, seed) for seed in (10, 20, 30)]
    swept = sweep_now(place)
    assert swept.compacted_packs == 3
    assert swept.copied_bytes == 3 * MIB
    assert place.bytes_stored() < 3.2 * MIB
    assert len({blob.pack for blob in place.blobs([storage_of(place, c) for c, _ in kept]).values()}) == 1
    for checkpoint, data in kept:
        assert place.original(checkpoint) == data
    assert check(place) == []
    assert foresee_now(place).compacted_packs == 0


OTHERS = ModelName("others", "resnet")


def test_compaction_never_puts_two_namespaces_into_one_pack(place: Workplace):
    kept = [mostly_dead(place, 10), mostly_dead(place, 20, OTHERS)]
    assert sweep_now(place).compacted_packs == 2
    assert namespaces_of_packs(place) == {(MODEL.namespace,), (OTHERS.namespace,)}
    for checkpoint, data in kept:
        assert place.original(checkpoint) == data
    assert check(place) == []


def test_a_pack_that_has_blobs_of_two_namespaces_is_taken_apart(place: Workplace):
    """Compaction made such packs once."""
    kept = [mostly_dead(place, 10), mostly_dead(place, 20, OTHERS)]
    with place.catalog.write() as w:
        packs.begin(w, "mixed", 60)
    moved: list[moves.Move] = []
    data = bytearray()
    old = list(unused.usage(place.catalog, IN_TWO_HOURS, lambda use: use.live > 0))
    for use in old:
        for blob_id, blob in moves.blobs_of(place.catalog, use.id, *use.namespaces):
            moved.append(moves.Move(blob_id, use.id, len(data)))
            data += place.store.read(blob.pack, Span(blob.offset, blob.offset + blob.length))
    place.store.write("mixed", [data, bytes(3 * len(data))])
    with place.catalog.write() as w:
        moves.move(w, packs.seal(w, "mixed", 4 * len(data)), moved)
        for name in ("mixed", *(use.name for use in old)):
            packs.finish(w, name)
    assert (MODEL.namespace, OTHERS.namespace) in {tuple(reversed(each)) for each in namespaces_of_packs(place)}
    assert sweep_now(place).compacted_packs == 1
    assert namespaces_of_packs(place) == {(MODEL.namespace,), (OTHERS.namespace,)}
    assert "mixed" not in place.pack_rows()
    for checkpoint, data_of_it in kept:
        assert place.original(checkpoint) == data_of_it
    assert check(place) == []


IN_TWO_HOURS = Moment.at(datetime.now(UTC) + timedelta(hours=2), 0)


def namespaces_of_packs(place: Workplace) -> set[tuple[str, ...]]:
    return {use.namespaces for use in unused.usage(place.catalog, IN_TWO_HOURS) if use.namespaces}


def storage_of(place: Workplace, checkpoint) -> str:
    return place.manifest(checkpoint).storages[0].digest


def pack_of(place: Workplace, checkpoint) -> str:
    digest = storage_of(place, checkpoint)
    return place.blobs([digest])[digest].pack


def file_of(place: Workplace, pack: str) -> Path:
    (file,) = place.folder.rglob(f"{pack}.pack")
    return file


def test_a_damaged_blob_is_never_copied_and_its_pack_stays_and_is_named(place: Workplace):
    (whole, data), (hurt, _) = mostly_dead(place, 10), mostly_dead(place, 20)
    digest = storage_of(place, hurt)
    blob = place.blobs([digest])[digest]
    file = file_of(place, blob.pack)
    with file.open("r+b") as opened:
        opened.seek(blob.offset + 1000)
        byte = opened.read(1)
        opened.seek(blob.offset + 1000)
        opened.write(bytes([byte[0] ^ 1]))
    before = file.read_bytes()
    swept = sweep_now(place)
    assert swept.damaged == (blob.pack,)
    assert swept.compacted_packs == 1
    assert file.read_bytes() == before
    assert place.original(whole) == data
    assert [finding.kind for finding in check(place)] == ["blob-damaged"]


def test_a_pack_that_is_lost_is_named_and_keeps_nobody_from_the_others(place: Workplace):
    (whole, data), (lost, _) = mostly_dead(place, 10), mostly_dead(place, 20)
    pack = pack_of(place, lost)
    file_of(place, pack).unlink()
    swept = sweep_now(place)
    assert (swept.damaged, swept.compacted_packs) == ((pack,), 1)
    assert place.original(whole) == data


@long
def test_blobs_of_many_blocks_keep_every_byte(place: Workplace):
    size = measure(20, 40)
    shared = weights(1, size)
    place.upload(torch_file({"shared": shared, "a": weights(2, size + 10)}))
    data = torch_file({"shared": shared})
    kept = place.upload(data)
    delete(place, 1)
    assert sweep_now(place).copied_bytes == size * MIB
    assert place.original(kept) == data
    assert check(place) == []


def test_where_there_is_no_room_for_the_live_part_the_old_pack_stays(tmp_path: Path, database_url: str):
    with mounted_tmpfs(tmp_path / "small", 8) as folder:
        place = Workplace.of(folder, Catalog(database_url, durable=False))
        shared = weights(1, 2)
        place.upload(torch_file({"shared": shared, "a": weights(2, 3)}))
        data = torch_file({"shared": shared})
        kept = place.upload(data)
        delete(place, 1)
        (folder / "filler").write_bytes(bytes(2 * MIB))
        swept = sweep_now(place)
        assert (swept.compacted_packs, swept.damaged) == (0, ())
        assert place.original(kept) == data
        (folder / "filler").unlink()
        assert sweep_now(place).compacted_packs == 1
        assert place.original(kept) == data
        assert check(place) == []
        place.close()


def test_a_copy_whose_lease_was_taken_away_moves_nothing(place: Workplace):
    """A server that starts alone, beside a sweep by hand, gives up what nobody can be writing."""
    kept, data = mostly_dead(place, 1)

    class GivenUp(LocalPackStore):
        def write(self, name, buffers):
            size, now = super().write(name, buffers), datetime.now(UTC)
            with place.catalog.write() as w:
                packs.finish_all(w)
                packs.give_up(w, now, packs.abandoned(w, now))
            self.delete(name)
            return size

    hindered = replace(place, store=GivenUp(place.folder, durable=False))
    swept = sweep_now(hindered)
    assert swept.compacted_packs == 0
    assert place.original(kept) == data
    assert sweep_now(place).compacted_packs == 1
    assert place.original(kept) == data
    assert check(place) == []


def test_a_download_that_runs_while_its_packs_are_compacted_ends_with_the_right_bytes(place: Workplace):
    shared = weights(1, 40)
    place.upload(torch_file({"shared": shared, "a": weights(2, 50)}))
    data = torch_file({"shared": shared})
    kept = place.upload(data)
    delete(place, 1)
    deliver = Deliver(place.catalog, place.store)
    received = bytearray()
    download = deliver.original(kept)

    async def read() -> None:
        async for views in download.windows(0, download.size):
            received.extend(b"".join(views))
            if len(received) < 20 * MIB:
                old = pack_of(place, kept)
                assert sweep_now(place).compacted_packs == 1
                with pytest.raises(PackMissing):
                    place.store.size(old)

    asyncio.run(read())
    deliver.close()
    assert received == data


@long
def test_compaction_holds_a_block_at_a_time(place: Workplace):
    """However much is live: what it reads is mapped, and let go of before the next block."""
    size = measure(44, 60)
    shared = weights(1, size)
    place.upload(torch_file({"shared": shared, "a": weights(2, size + 10)}))
    place.upload(torch_file({"shared": shared}))
    delete(place, 1)
    mapped: list[int] = []

    def watch() -> None:
        lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if f"{place.folder}/packs/" in line]
        ranges = (line.split()[0].split("-") for line in lines)
        mapped.append(sum(int(end, 16) - int(start, 16) for start, end in ranges))

    assert sweep_now(place, go_on=watch).copied_bytes == size * MIB
    assert len(mapped) > 4
    assert max(mapped) <= 2 * 17 * MIB
