"""The record of when tokens were last used: rare writes, however many requests there are."""

import asyncio
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.access.grants import Access
from app.access.last_uses import LastUses
from app.access.signatures import Resource
from app.catalog import Catalog, sessions, tokens
from app.values.session import new_session
from app.values.token import Scope, Token, new_token
from tests.catalog.make import statements
from tests.support.waiting import awaited_soon


def make(catalog: Catalog, name: str) -> tuple[Token, bytes]:
    token, text = new_token(name, Scope.WRITE, None, datetime.now(UTC), None)
    with catalog.write() as w:
        tokens.add(w, token)
    return token, text.encode()


async def is_recorded(catalog: Catalog, name: str) -> bool:
    with catalog.read() as s:
        (token,) = (each for each in tokens.list_tokens(s) if each.name == name)
    return token.last_used_at is not None


def test_a_thousand_requests_cost_one_row_a_minute_whichever_worker_they_reach(catalog: Catalog) -> None:
    _, text = make(catalog, "a")

    async def requests() -> tuple[int, float]:
        workers = [Access(catalog, None)]
        for _ in range(500):
            await workers[0].of_token(text)
        await awaited_soon(lambda: is_recorded(catalog, "a"))
        workers.append(Access(catalog, None))
        for _ in range(500):
            for worker in workers:
                await worker.of_token(text)
        for worker in workers:
            worker.close()
        return sum("UPDATE tokens" in statement for statement in seen), time.monotonic() - began

    with statements(catalog) as seen:
        began = time.monotonic()
        written, seconds = asyncio.run(requests())
    assert 1 <= written <= 1 + seconds / tokens.USES_APART.total_seconds()


def test_a_refused_token_is_not_used_and_a_link_or_a_session_uses_its_token(catalog: Catalog) -> None:
    here = Resource("/v1/models/a/b/checkpoints/1/file/x.pt", ())
    (linking, by_link), (browsing, _), (_, wrong) = (make(catalog, name) for name in ("linking", "browsing", "wrong"))
    session, cookie = new_session(browsing.id, browsing.secret_hash, datetime.now(UTC))
    with catalog.write() as w:
        sessions.add(w, session)

    async def requests() -> None:
        first = Access(catalog, None)
        grant = await first.of_token(by_link)
        signature, _ = (await first.signer(grant)).sign(here, timedelta(minutes=5))
        access = Access(catalog, None)
        assert (await access.of_link(here, str(signature))).maker == linking.id
        assert (await access.of_session(cookie)).maker == browsing.id
        assert await access.of_token(wrong[:-1] + (b"0" if wrong[-1:] != b"0" else b"1")) is None
        access.close()

    asyncio.run(requests())
    with catalog.read() as s:
        used = {token.name for token in tokens.list_tokens(s) if token.last_used_at is not None}
    assert used == {"linking", "browsing"}


def test_a_use_that_cannot_be_recorded_is_a_warning_and_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token, _ = new_token("a", Scope.READ, None, datetime.now(UTC), None)

    async def use() -> None:
        with closing(Catalog(f"sqlite:///{tmp_path}/missing/catalog.db")) as catalog:
            uses = LastUses(catalog)
            uses.note(token)
            uses.close()

    asyncio.run(use())
    assert "the last use of 1 tokens was not recorded" in caplog.text
