"""Checks of tokens, links and sessions. The catalog's answer is cached for a moment, so a request costs no query."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from anyio import CapacityLimiter, to_thread

from ..catalog import Catalog
from ..catalog.tokens import Credentials, credentials
from ..errors import StateroomError, StoreError
from ..values.session import session_id
from ..values.token import Scope, Token, is_secret_of, parse_token
from .last_uses import LastUses
from .signatures import LONGEST, Resource, Signature, parse_signature, sign

KEPT = 2.0
"""Seconds for which the catalog's answer is cached: a revoked token may be used that long."""

SPACING = 0.5
"""Fewest seconds between two queries of the catalog, however many wrong tokens come in."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The rights of one caller, everywhere if ``namespaces`` is None. The log shows ``name``; a link identifies its
    maker by ``maker`` and ``seal``.
    """

    name: str | None
    maker: str
    seal: str
    scope: Scope
    namespaces: frozenset[str] | None = None
    expires_at: datetime | None = None
    by_link: bool = False

    def holds_in(self, namespace: str) -> bool:
        return self.namespaces is None or namespace in self.namespaces

    def account(self, address: str) -> str:
        """Return the account whose share of this server the caller takes: one for each token, one for all links of a
        token, and one for each ``address`` where nobody needs a token.
        """
        of = f"{self.maker} {address}" if self.maker == OPEN.maker else self.maker
        return f"links of {of}" if self.by_link else of


def _of_token(token: Token) -> Grant:
    return Grant(token.name, token.id, token.secret_hash, token.scope, token.namespaces, token.expires_at)


OPEN = Grant(None, "open", "", Scope.ADMIN)
"""The grant of every caller, if there never was a token."""


@dataclass(frozen=True, slots=True)
class Signer:
    """The signer of one caller's links, with the newest key."""

    grant: Grant
    key_id: int
    key: bytes

    def sign(self, resource: Resource, lifetime: timedelta) -> tuple[Signature, datetime]:
        """Sign a link, and return when it ends, too: after ``lifetime``, after LONGEST, or with its maker's token."""
        ends = datetime.now(UTC) + min(lifetime, LONGEST)
        expires = int(min(ends, self.grant.expires_at or ends).timestamp())
        signature = sign(resource, expires, self.key_id, self.key, self.grant.maker, self.grant.seal)
        return signature, datetime.fromtimestamp(expires, UTC)


class Access:
    """The check of callers, by the catalog's tokens as they were at most KEPT seconds ago.

    A caller is refused only by a query that began after the caller came, so a token works as soon as it is made. One
    short query serves many callers, and there is never more than one in SPACING seconds. Memory is bounded by the good
    tokens, because no others are kept. Create it on the event loop. ``server_token`` is all-powerful.
    """

    def __init__(self, catalog: Catalog, server_token: str | None) -> None:
        self._catalog = catalog
        self._server_token = None if server_token is None else server_token.encode()
        seal = hashlib.sha256(self._server_token or b"").hexdigest()
        self._of_server = None if server_token is None else Grant("STATEROOM_SERVER_TOKEN", "server", seal, Scope.ADMIN)
        self._asking = asyncio.Lock()
        self._thread = CapacityLimiter(1)
        self._asked_at = self._answered_at = self._failed_at = float("-inf")
        self._known = Credentials()
        self._is_guarded = False  # once there was a token, this stays so
        self._failure: StateroomError | None = None
        self._uses = LastUses(catalog)

    def close(self) -> None:
        """Record the last uses of tokens that are not recorded yet. Blocks."""
        self._uses.close()

    async def is_open(self) -> bool:
        """Tell whether there never was a token. Raises StateroomError if the catalog does not answer."""
        if self._of_server is not None or self._is_guarded:
            return False
        return await self.of_nobody() is not None

    async def of_nobody(self) -> Grant | None:
        """Return the grant of a caller without credentials. Raises StateroomError if the catalog does not answer."""
        if self._of_server is not None:
            return None
        known = await self._asked_since(time.monotonic() - KEPT)
        return None if known.guarded else OPEN

    async def of_token(self, text: bytes) -> Grant | None:
        """Return the grant of a token, None for one that is invalid or no longer good. Raises as above."""
        if self._server_token is not None and hmac.compare_digest(text, self._server_token):
            return self._of_server
        parsed = parse_token(text)
        if parsed is None:
            return await self.of_nobody()
        id_, secret = parsed

        def judge(known: Credentials) -> Grant | None:
            token = known.token(id_)
            if is_secret_of(secret, token) and token is not None and token.is_good(datetime.now(UTC)):
                return _of_token(token)
            return None if known.guarded or self._of_server is not None else OPEN

        return await self._judged(judge)

    async def of_session(self, text: str) -> Grant | None:
        """Return the grant of a browser's session, None for one that has ended. Raises as above."""
        id_ = session_id(text)
        if id_ is None:
            return await self.of_nobody()

        def judge(known: Credentials) -> Grant | None:
            session = known.session(id_)
            maker = None if session is None else self._maker(known, session.maker)
            if session is None or maker is None:
                return None if known.guarded or self._of_server is not None else OPEN
            is_good = hmac.compare_digest(session.seal, maker.seal) and datetime.now(UTC) < session.expires_at
            return maker if is_good else None

        return await self._judged(judge)

    async def of_link(self, resource: Resource, text: str, scope: Scope = Scope.READ) -> Grant | None:
        """Return the grant of a link for ``scope``, None unless it was made for exactly this ``resource``, by a
        token that has the scope. Raises as above.
        """
        signature = parse_signature(text)
        if signature is None or signature.expires <= time.time():
            return None
        return await self._judged(lambda known: self._judge_link(known, resource, signature, scope))

    async def signer(self, grant: Grant) -> Signer:
        """Return a signer of links. Raises StateroomError if the catalog does not answer, or holds no key."""
        keys = (await self._asked_since(time.monotonic() - KEPT)).keys
        if not keys:
            raise StoreError("the catalog has no key to sign links with", code="catalog-failed")
        return Signer(grant, max(keys), keys[max(keys)])

    def _judge_link(self, known: Credentials, resource: Resource, signature: Signature, scope: Scope) -> Grant | None:
        key, maker = known.keys.get(signature.key), self._maker(known, signature.maker)
        if key is None or maker is None or not signature.is_of(resource, key, maker.seal):
            return None
        if not maker.scope.covers(scope):
            return None
        return replace(maker, name=f"link by {maker.name or 'anybody'}", scope=scope, by_link=True)

    def _maker(self, known: Credentials, maker: str) -> Grant | None:
        """Return the grant of a link's maker, None if the maker is no longer let in."""
        if self._of_server is not None and maker == self._of_server.maker:
            return self._of_server
        if maker == OPEN.maker:
            return None if known.guarded or self._of_server is not None else OPEN
        token = known.token(maker)
        return _of_token(token) if token is not None and token.is_good(datetime.now(UTC)) else None

    async def _judged(self, judge: Callable[[Credentials], Grant | None]) -> Grant | None:
        came = time.monotonic()
        grant = judge(await self._asked_since(came - KEPT))
        if grant is None:
            grant = judge(await self._asked_since(came))
        if grant is not None and (token := self._known.token(grant.maker)) is not None:
            self._uses.note(token)
        return grant

    async def _asked_since(self, moment: float) -> Credentials:
        """Return the catalog's answer to a query at ``moment`` or later. Concurrent callers wait for one query, and
        share its failure; whoever comes after a failure asks anew.
        """
        if self._answered_at < moment:
            came = time.monotonic()
            async with self._asking:
                if self._failure is not None and came <= self._failed_at:
                    raise type(self._failure)(self._failure.detail, code=self._failure.code) from self._failure
                if self._answered_at < moment:
                    await self._ask()
        return self._known

    async def _ask(self) -> None:
        await asyncio.sleep(max(0.0, self._asked_at + SPACING - time.monotonic()))
        self._asked_at = time.monotonic()
        try:
            self._known = await to_thread.run_sync(self._read, limiter=self._thread)
        except StateroomError as error:
            self._failure, self._failed_at = error, time.monotonic()
            raise
        self._answered_at = self._asked_at
        self._is_guarded = self._known.guarded

    def _read(self) -> Credentials:
        with self._catalog.read() as session:
            return credentials(session, datetime.now(UTC))
