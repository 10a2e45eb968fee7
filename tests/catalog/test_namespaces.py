"""Namespaces in the catalog: their counters against a scan, and their quotas against uploads side by side."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app.catalog import Catalog, audit_counters, namespaces, packs, tables, trash, unfinished, unused
from app.catalog.commit import BATCH, commit
from app.catalog.session import WriteSession
from app.catalog.unused import MARGIN, Moment
from app.errors import InvalidRequest, NotFound, QuotaExceeded, StateroomError
from app.values.checkpoint import ModelName
from app.values.namespace import Namespace
from tests.catalog.make import MODEL, add, begin_pack, count, digest, new_checkpoint, resolve
from tests.support.measure import long, measure

MODELS = [ModelName(namespace, name) for namespace in ("vision", "text", "audio") for name in ("a", "b")]


class Crash(Exception):
    """The end of a process."""


class CrashingCatalog(Catalog):
    """A catalog whose process ends at a random edge of a transaction: right before its commit, or right after."""

    def __init__(self, url: str, chance: random.Random) -> None:
        super().__init__(url, durable=False)
        self.chance = chance
        self.crashes = 0

    @contextmanager
    def write(self, namespace: str | None = None) -> Iterator[WriteSession]:
        with super().write(namespace) as w:
            yield w
            self._perhaps_crash()
        self._perhaps_crash()

    def _perhaps_crash(self) -> None:
        if self.chance.random() < 0.02:
            self.crashes += 1
            raise Crash


class Workload:
    """Random operations on a catalog, as servers and sweeps do them."""

    def __init__(self, catalog: CrashingCatalog) -> None:
        self.catalog = catalog
        self.chance = catalog.chance
        self.sealed: list[str] = []

    def step(self) -> None:
        what = self.chance.choices(
            [self.commit, self.delete, self.restore, self.sweep, self.release, self.recover, self.hurt],
            [50, 25, 10, 10, 10, 3, 2],
        )
        with suppress(Crash, StateroomError):
            what[0]()

    def commit(self) -> None:
        """Commit a checkpoint of stored, new and missing blobs; some in batches, and some twice with one pack."""
        model, kind = self.chance.choice(MODELS), self.chance.random()
        new = [digest(f"{model.namespace} {self.chance.randrange(40)}") for _ in range(self.chance.randrange(6))]
        if kind < 0.005:
            new += [digest(f"many {number}") for number in range(BATCH)]
        missing = [digest("missing")] if kind > 0.8 else []
        pack = begin_pack(self.catalog, list(dict.fromkeys(new)))
        self.sealed.append(pack.name)
        fields = {"nbytes": self.chance.randrange(10_000), "idempotency_key": f"key {self.chance.randrange(50)}"}
        checkpoint = new_checkpoint(model, blobs=(*new, *missing), **(fields if kind < 0.5 else {}))
        commit(self.catalog, checkpoint, pack)

    def delete(self) -> None:
        model = self.chance.choice(MODELS)
        with self.catalog.write() as w:
            version = resolve(self.catalog, "latest", model=model).version
            kept = timedelta(days=self.chance.randrange(2))
            trash.delete_checkpoint(w, model, self.chance.randint(1, version), kept=kept)

    def restore(self) -> None:
        """Bring something back from the trash."""
        model = self.chance.choice(MODELS)
        with self.catalog.write() as w:
            found = trash.list_trash(w, model).items
            if found:
                trash.restore(w, model, self.chance.choice(found).version)

    def sweep(self) -> None:
        moment = Moment.at(datetime.now(UTC) + 2 * MARGIN, 0)
        if self.chance.random() < 0.3:
            trash.purge(self.catalog, moment.now + timedelta(days=1), lambda: None)
        unused.mark(self.catalog, moment, lambda: None)
        unused.drop(self.catalog, moment, lambda: None)

    def release(self) -> None:
        """Give up an upload, whatever became of it."""
        if self.sealed:
            unused.release(self.catalog, self.sealed.pop(self.chance.randrange(len(self.sealed))))

    def recover(self) -> None:
        """Start again after a crash."""
        with self.catalog.write() as w:
            packs.finish_all(w)
        unfinished.drop(self.catalog, None, lambda: None)

    def hurt(self) -> None:
        """Damage a row, perhaps its length too: the next upload of its blob corrects it."""
        b, length = tables.blobs.c, self.chance.choice([100, 70])
        one = b.id == select(func.max(b.id)).scalar_subquery()
        with self.catalog.write() as w:
            for namespace, before in w.select(select(b.namespace, b.length).where(one)).all():
                namespaces.count(w, namespace, stored_bytes=length - before)
            w.execute(update(tables.blobs).where(one).values(damaged_at=1, length=length))


@long
def test_the_counters_are_those_of_a_scan_whatever_happens(database_url: str):
    steps = measure(400, 5_000) if database_url.startswith("sqlite") else measure(150, 1_000)
    with closing(CrashingCatalog(database_url, random.Random(1))) as catalog:
        workload = Workload(catalog)
        for number in range(steps):
            workload.step()
            if number % 100 == 0:
                assert miscounted(catalog) == []
        assert miscounted(catalog) == []
        assert catalog.crashes > steps // 50
        found = listed(catalog)
    assert [each.name for each in found] == ["audio", "text", "vision"]
    assert all(each.checkpoints > 0 and each.stored_bytes > 0 for each in found)


def miscounted(catalog: Catalog) -> list[tuple[object, str]]:
    with catalog.read() as s:
        return audit_counters.wrong_models(s) + audit_counters.wrong_runs(s) + audit_counters.wrong_namespaces(s)


def listed(catalog: Catalog, **options: Any) -> tuple[Namespace, ...]:
    with catalog.read() as s:
        return namespaces.list_namespaces(s, **options).items


def set_quotas(catalog: Catalog, **quotas: int | None) -> None:
    with catalog.write() as w:
        namespaces.set_quotas(w, "vision", quotas)


@pytest.mark.parametrize("number", [3, BATCH + 1], ids=["in one transaction", "in batches"])
def test_a_commit_over_a_quota_leaves_nothing_and_one_that_fits_is_stored(catalog: Catalog, number: int):
    digests = [digest(f"blob {i}") for i in range(number)]
    set_quotas(catalog, quota_bytes=100 * number - 1)
    pack = begin_pack(catalog, digests)
    with pytest.raises(QuotaExceeded, match=f"the quota is {100 * number - 1:,} bytes.*Delete checkpoints"):
        commit(catalog, new_checkpoint(blobs=digests), pack)
    unused.release(catalog, pack.name)
    assert listed(catalog) == (Namespace("vision", 100 * number - 1, None, 0, 0, 0, 0),)
    assert count(catalog, "checkpoints") == count(catalog, "blobs") == 0

    set_quotas(catalog, quota_bytes=100 * number, quota_checkpoints=2)
    commit(catalog, new_checkpoint(blobs=digests), begin_pack(catalog, digests))
    commit(catalog, new_checkpoint(blobs=digests), None)  # what is stored already adds nothing
    with pytest.raises(QuotaExceeded, match="the namespace vision has 2 checkpoints, and its quota is 2"):
        commit(catalog, new_checkpoint(blobs=digests), None)
    assert listed(catalog) == (Namespace("vision", 100 * number, 2, 1, 2, 10_000, 100 * number),)
    add(catalog, ModelName("text", "free"))  # each namespace has its own


def test_a_quota_refuses_growth_and_nothing_else(catalog: Catalog):
    blobs = [digest("a"), digest("b")]
    commit(catalog, new_checkpoint(blobs=blobs), begin_pack(catalog, blobs))
    set_quotas(catalog, quota_bytes=150)
    commit(catalog, new_checkpoint(blobs=blobs), None)
    with catalog.read() as s:
        with pytest.raises(QuotaExceeded):
            namespaces.check_room(s, "vision", 0)
        namespaces.check_room(s, "text", 10**12)
    with catalog.write() as w:
        trash.delete_checkpoint(w, MODEL, 1)
        trash.delete_checkpoint(w, MODEL, 2)
        packs.finish_all(w)
    assert listed(catalog) == (Namespace("vision", 150, None, 1, 0, 0, 200),)
    moment = Moment.at(datetime.now(UTC) + 2 * MARGIN, 0)
    unused.mark(catalog, moment, lambda: None)
    unused.drop(catalog, moment, lambda: None)
    with catalog.read() as s:
        namespaces.check_room(s, "vision", 150)
        with pytest.raises(QuotaExceeded, match="stores 0 bytes, the upload may add 151, and the quota is 150 bytes"):
            namespaces.check_room(s, "vision", 151)
    set_quotas(catalog, quota_bytes=None)
    commit(catalog, new_checkpoint(blobs=blobs), begin_pack(catalog, blobs))


def test_the_trash_counts_as_bytes_and_what_comes_back_needs_room(catalog: Catalog):
    blobs = [digest("a")]
    commit(catalog, new_checkpoint(blobs=blobs), begin_pack(catalog, blobs))
    set_quotas(catalog, quota_checkpoints=0)
    with catalog.write() as w:
        trash.delete_checkpoint(w, MODEL, 1, kept=timedelta(days=1))
    in_trash = Namespace("vision", None, 0, 1, 0, 0, 100)
    assert listed(catalog) == (in_trash,)
    with pytest.raises(QuotaExceeded), catalog.write() as w:
        trash.restore(w, MODEL, 1)
    assert listed(catalog) == (in_trash,)
    set_quotas(catalog, quota_checkpoints=1)
    with catalog.write() as w:
        trash.restore(w, MODEL, 1)
    assert listed(catalog) == (Namespace("vision", None, 1, 1, 1, 5_000, 100),)
    assert miscounted(catalog) == []


def test_uploads_side_by_side_exceed_no_quota(database_url: str):
    with closing(Catalog(database_url, durable=False)) as one, closing(Catalog(database_url, durable=False)) as other:
        set_quotas(one, quota_bytes=450, quota_checkpoints=9)

        def upload(number: int) -> bool:
            catalog, blobs = (one, other)[number % 2], [digest(f"blob {number}")]
            try:
                commit(catalog, new_checkpoint(blobs=blobs), begin_pack(catalog, blobs))
            except QuotaExceeded:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(upload, range(16))) == 4
        assert listed(one) == (Namespace("vision", 450, 9, 1, 4, 20_000, 400),)
        assert miscounted(one) == []


def test_a_namespace_is_shown_while_it_holds_something_or_has_a_quota(catalog: Catalog):
    for model in MODELS:
        add(catalog, model)
    with catalog.write() as w:
        namespaces.set_quotas(w, "later", {"quota_bytes": 0})
        namespaces.set_quotas(w, "nothing", {})
    with catalog.read() as s:
        first = namespaces.list_namespaces(s, limit=2)
        rest = namespaces.list_namespaces(s, limit=2, cursor=first.next)
        assert [each.name for each in (*first.items, *rest.items)] == ["audio", "later", "text", "vision"]
        assert (rest.next, rest.items[1].models, rest.items[1].logical_bytes) == (None, 2, 10_000)
        assert namespaces.get_namespace(s, "vision") == rest.items[1]
        for name in ("nothing", "never"):
            with pytest.raises(NotFound, match="holds nothing, and has no quota"):
                namespaces.get_namespace(s, name)
        with pytest.raises(InvalidRequest, match="of another listing"):
            namespaces.list_namespaces(s, cursor=first.next, only=frozenset({"vision"}))
    assert [each.name for each in listed(catalog, only=frozenset({"text"}))] == ["text"]
