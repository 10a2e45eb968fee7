"""Authorization of callers: its cost in catalog reads, and how soon a change takes effect."""

import asyncio
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median_low

import pytest

from app.access.grants import KEPT, OPEN, SPACING, Access
from app.access.signatures import Resource
from app.catalog import Catalog, tokens
from app.errors import StoreError
from app.values.token import Scope, new_token
from tests.catalog.make import statements
from tests.support.waiting import awaited_soon

HERE = Resource("/v1/models/a/b/checkpoints/1/file/x.pt", ())


def make(catalog: Catalog, name: str = "a", seconds: float | None = None) -> bytes:
    now = datetime.now(UTC)
    ends = None if seconds is None else now + timedelta(seconds=seconds)
    token, text = new_token(name, Scope.WRITE, frozenset({"vision"}), now, ends)
    with catalog.write() as w:
        tokens.add(w, token)
    return text.encode()


def revoke(catalog: Catalog, name: str = "a") -> None:
    with catalog.write() as w:
        tokens.revoke(w, name, datetime.now(UTC))


def wrong() -> bytes:
    return f"stateroom_{secrets.token_hex(8)}_{secrets.token_hex(32)}".encode()


def judged(catalog: Catalog, test: Callable[[Access], Awaitable[None]], server_token: str | None = None) -> None:
    async def run() -> None:
        await test(Access(catalog, server_token))

    asyncio.run(run())


def test_a_token_is_granted_what_it_was_made_for(catalog: Catalog) -> None:
    text = make(catalog)

    async def test(access: Access) -> None:
        grant = await access.of_token(text)
        assert (grant.scope, grant.namespaces, grant.by_link) == (Scope.WRITE, {"vision"}, False)
        assert await access.of_token(text[:-1]) is None
        assert await access.of_nobody() is None

    judged(catalog, test)


def test_everybody_may_do_everything_until_there_is_a_token(catalog: Catalog) -> None:
    async def test(access: Access) -> None:
        assert await access.of_nobody() is OPEN
        assert await access.of_token(b"anything") is OPEN
        assert await access.of_token(wrong()) is OPEN
        make(catalog)
        revoke(catalog)

        async def closed() -> bool:
            return await access.of_nobody() is None

        await awaited_soon(closed)
        assert await access.of_token(b"anything") is None

    judged(catalog, test)


def test_the_servers_own_token_needs_no_catalog(catalog: Catalog) -> None:
    async def test(access: Access) -> None:
        with statements(catalog) as seen:
            assert (await access.of_token(b"s3cret")).scope is Scope.ADMIN
            assert await access.of_token(b"s3cre") is None
            assert await access.of_nobody() is None
        assert seen == []

    judged(catalog, test, "s3cret")


def test_a_token_works_as_soon_as_it_is_made(catalog: Catalog) -> None:
    async def test(access: Access) -> None:
        for name in ("a", "b", "c"):
            text = make(catalog, name)
            assert await access.of_token(text) is not None

    judged(catalog, test)


def test_a_revoked_token_is_refused_within_five_seconds(catalog: Catalog) -> None:
    text = make(catalog)

    async def test(access: Access) -> None:
        assert await access.of_token(text) is not None
        revoke(catalog)

        async def refused() -> bool:
            return await access.of_token(text) is None

        await awaited_soon(refused)

    judged(catalog, test)


def test_a_token_ends_when_it_ends_whatever_is_remembered(catalog: Catalog) -> None:
    began = time.time()
    text = make(catalog, seconds=0.5)
    ended = time.time() + 0.5

    async def test(access: Access) -> None:
        asked = time.time()
        while await access.of_token(text) is not None:
            assert asked < ended
            asked = time.time()
        assert time.time() >= began + 0.5

    judged(catalog, test)


def test_a_thousand_requests_with_a_good_token_ask_the_catalog_once(catalog: Catalog) -> None:
    text = make(catalog)

    async def test(access: Access) -> None:
        with statements(catalog) as seen:
            began = time.monotonic()
            for _ in range(10):
                await asyncio.gather(*(access.of_token(text) for _ in range(100)))
            questions = len(seen) / 4
        assert questions <= 1 + (time.monotonic() - began) / KEPT

    judged(catalog, test)


def test_a_flood_of_wrong_tokens_asks_seldom_keeps_nothing_and_holds_up_nobody(catalog: Catalog) -> None:
    text = make(catalog)

    async def test(access: Access) -> None:
        began = time.monotonic()
        with statements(catalog) as seen:
            flood = asyncio.gather(*(access.of_token(wrong()) for _ in range(20_000)))
            await access.of_token(text)
            waits = []
            while not flood.done():
                asked = time.monotonic()
                assert await access.of_token(text) is not None
                waits.append(time.monotonic() - asked)
                await asyncio.sleep(0.01)
            assert set(await flood) == {None}
            questions = len(seen) / 4
        assert questions <= 2 + (time.monotonic() - began) / SPACING
        assert not waits or median_low(waits) < 1
        assert list(access._known.rows) == [text.split(b"_")[1].decode()]

    judged(catalog, test)


def test_a_catalog_that_does_not_answer_is_a_failure_and_no_refusal_and_is_asked_seldom(tmp_path) -> None:
    (tmp_path / "broken.db").write_bytes(b"not a database" * 1000)
    with closing(Catalog(f"sqlite:///{tmp_path}/broken.db")) as catalog:

        async def test(access: Access) -> None:
            answers = await asyncio.gather(*(access.of_token(wrong()) for _ in range(100)), return_exceptions=True)
            assert {type(answer) for answer in answers} == {StoreError}
            assert {answer.code for answer in answers} == {"catalog-failed"}
            with pytest.raises(StoreError):
                await access.of_nobody()

        began = time.monotonic()
        judged(catalog, test)
        assert time.monotonic() - began < 60


def test_after_a_failure_of_the_catalog_the_next_caller_asks_anew(migrated: Path, tmp_path: Path) -> None:
    database = tmp_path / "catalog.db"
    database.write_bytes(b"not a database" * 1000)
    with closing(Catalog(f"sqlite:///{database}")) as catalog:

        async def test(access: Access) -> None:
            with pytest.raises(StoreError):
                await access.of_nobody()
            shutil.copy(migrated, database)
            assert await access.of_nobody() == OPEN

        judged(catalog, test)


def test_a_link_is_good_for_what_it_was_made_for_and_as_long_as_its_maker(catalog: Catalog) -> None:
    text = make(catalog)

    async def test(access: Access) -> None:
        signer = await access.signer(await access.of_token(text))
        signature, ends = signer.sign(HERE, timedelta(hours=1))
        assert timedelta(minutes=50) < ends - datetime.now(UTC) <= timedelta(hours=1)
        grant = await access.of_link(HERE, str(signature))
        assert (grant.scope, grant.namespaces, grant.by_link) == (Scope.READ, {"vision"}, True)
        elsewhere = Resource(HERE.path, (("device", "cpu"),))
        assert await access.of_link(elsewhere, str(signature)) is None
        revoke(catalog)

        async def dead() -> bool:
            return await access.of_link(HERE, str(signature)) is None

        await awaited_soon(dead)

    judged(catalog, test)


def test_no_link_outlives_its_maker_or_a_week(catalog: Catalog) -> None:
    began = datetime.now(UTC)
    short, endless = make(catalog, "short", seconds=600), make(catalog, "endless")

    async def test(access: Access) -> None:
        for text, longest in ((short, timedelta(seconds=600)), (endless, timedelta(days=7))):
            signer = await access.signer(await access.of_token(text))
            _, ends = signer.sign(HERE, timedelta(days=365))
            assert longest - timedelta(seconds=1) <= ends - began
            assert ends - datetime.now(UTC) <= longest

    judged(catalog, test)


def test_another_replica_takes_a_link_and_one_with_another_server_token_does_not(catalog: Catalog) -> None:
    async def test(access: Access) -> None:
        signature, _ = (await access.signer(await access.of_token(b"s3cret"))).sign(HERE, timedelta(hours=1))
        assert await Access(catalog, "s3cret").of_link(HERE, str(signature)) is not None
        assert await Access(catalog, "changed").of_link(HERE, str(signature)) is None
        assert await Access(catalog, None).of_link(HERE, str(signature)) is None

    judged(catalog, test, "s3cret")


def test_a_link_made_by_anybody_ends_when_tokens_are_asked_for(catalog: Catalog) -> None:
    async def test(access: Access) -> None:
        signature, _ = (await access.signer(await access.of_nobody())).sign(HERE, timedelta(hours=1))
        assert await access.of_link(HERE, str(signature)) is not None
        assert await Access(catalog, "s3cret").of_link(HERE, str(signature)) is None
        make(catalog)
        assert await Access(catalog, None).of_link(HERE, str(signature)) is None

    judged(catalog, test)


def test_a_new_signing_key_ends_all_links(catalog: Catalog) -> None:
    text = make(catalog)

    async def test(access: Access) -> None:
        signature, _ = (await access.signer(await access.of_token(text))).sign(HERE, timedelta(hours=1))
        with catalog.write() as w:
            w._connection.exec_driver_sql("DELETE FROM signing_keys")
            w._connection.exec_driver_sql(f"INSERT INTO signing_keys (key) VALUES ('{secrets.token_hex(32)}')")
        other = Access(catalog, None)
        assert await other.of_link(HERE, str(signature)) is None
        signature, _ = (await other.signer(await other.of_token(text))).sign(HERE, timedelta(hours=1))
        assert await other.of_link(HERE, str(signature)) is not None

    judged(catalog, test)
