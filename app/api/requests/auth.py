"""Authorization. Every route declares READ, WRITE, ADMIN, DOWNLOAD, EVERYWHERE or ADMIN_EVERYWHERE; a page declares
PAGE, WRITE_PAGE, ADMIN_PAGE or AUDIT_PAGE.

A caller shows a token as a Bearer, or as the password of Basic; for a download, a link; a browser, the cookie of a
session. Each declaration is a list of ``dependencies`` of a route. Authorization comes first, before the query is
checked or a body is read, and without looking into the namespace.
"""

import base64
import binascii
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute
from fastapi.security import APIKeyQuery
from fastapi.security.http import HTTPBase
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from ...access.grants import OPEN, Grant
from ...access.signatures import Resource, parse_signature
from ...concurrency.cancellation import Work, begin
from ...errors import CrossSite
from ...notify.refusals import Refusal
from ...values.actor import Actor, act_as
from ...values.token import Scope, parse_token
from ..services import Services, ServicesDep
from .cookies import COOKIE_WRITES, is_own_page, session_in
from .params import known_parameters

BEARER = 'Bearer realm="stateroom"'
CHALLENGE = 'Bearer realm="stateroom", Basic realm="stateroom", charset="UTF-8"'
SIGNATURE = "signature"
SHOWN = 5
"""Most namespaces of a token that a refusal names."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def token_in(authorization: bytes) -> bytes | None:
    """Return the token in an Authorization header, None without one. A token may be any bytes, not only UTF-8."""
    scheme, _, credentials = authorization.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip()
    if scheme.lower() == b"basic":
        try:
            user_and_password = base64.b64decode(credentials.strip(), validate=True)
        except binascii.Error:
            return None
        _, colon, password = user_and_password.partition(b":")
        return password if colon else None
    return None


def link_in(request: Request) -> tuple[Resource, str] | None:
    """Return the resource and the signature of a request by link; None without a link."""
    given = request.query_params.multi_items()
    signatures = [value for name, value in given if name == SIGNATURE]
    if not signatures:
        return None
    return Resource(request.scope["path"], [pair for pair in given if pair[0] != SIGNATURE]), "&".join(signatures)


@dataclass(frozen=True, slots=True)
class Allowed:
    """A dependency that requires ``scope`` in the namespace of the path.

    ``link``: a link for this very request is enough, too. ``everywhere``: the token must not be limited to a namespace.
    Sets ``request.state.grant``; from then on the request's work is done on the caller's account.
    """

    scope: Scope
    link: bool = False
    everywhere: bool = False

    async def __call__(self, request: Request, services: ServicesDep) -> None:
        grant = await self.judge(request, services)
        request.state.allowed = self
        address = address_of(request)
        act_as(Actor(grant.name, address))
        begin(Work(grant.account(address or "")))

    async def judge(self, request: Request, services: Services) -> Grant:
        """Return the caller's grant, and note it for the log. Raises HTTPException (401, 403) unless it is enough; the
        refusal of a token or a link is noted for the audit log.
        """
        try:
            return await self._judge(request, services)
        except HTTPException as refused:
            if (token := _token_refused(request)) is not None:
                request.state.refused = token
                services.refusals.note(Refusal(address_of(request), token, refused.detail))
            raise

    async def _judge(self, request: Request, services: Services) -> Grant:
        link = self._link(request)
        if link is not None:
            grant = await services.access.of_link(*link, self.scope)
            if grant is None:
                raise HTTPException(403, "This link is invalid, expired or revoked; make a new one.")
        else:
            grant = await _shown(request, services)
        request.state.grant = grant
        self._check(grant, request.path_params.get("namespace"))
        return grant

    def _link(self, request: Request) -> tuple[Resource, str] | None:
        return link_in(request) if self.link else None

    def _check(self, grant: Grant, namespace: str | None) -> None:
        if grant.namespaces is not None:
            if self.everywhere:
                raise HTTPException(403, "This request needs a token that is not limited to a namespace.")
            if namespace is not None and namespace not in grant.namespaces:
                raise HTTPException(403, f"This token is valid only in {_listed(grant.namespaces)}.")
        if not grant.scope.covers(self.scope):
            raise HTTPException(403, f"This request needs a token of scope {self.scope}; this one has {grant.scope}.")


def xet_resource(model: str) -> Resource:
    """Return the resource that the tokens for uploads by Xet to ``model`` (``namespace/name``) are signed for."""
    return Resource(f"/{model}.git/xet", ())


@dataclass(frozen=True, slots=True)
class AllowedByXet(Allowed):
    """A declaration for an upload by Xet: its clients show a link's signature as a Bearer. A token is enough, too."""

    def _link(self, request: Request) -> tuple[Resource, str] | None:
        shown = token_in(request.headers.get("Authorization", "").encode("latin-1"))
        signature = None if shown is None else parse_signature(shown.decode("latin-1"))
        if signature is None:
            return None
        model = f"{request.path_params['namespace']}/{request.path_params['name']}"
        return xet_resource(model), str(signature)


def _listed(namespaces: Collection[str]) -> str:
    """Return the names of some namespaces, of which the audit log need not hold all."""
    names = sorted(namespaces)
    if len(names) == 1:
        return f"the namespace {names[0]}"
    return f"the namespaces {', '.join(names[:SHOWN])}{', ...' if names[SHOWN:] else ''}"


def address_of(request: Request) -> str | None:
    return request.client.host if request.client else None


def _token_refused(request: Request) -> str | None:
    """Return what names the token or link of a refused request; None if it has neither."""
    grant = getattr(request.state, "grant", None)
    if grant is not None:
        return str(grant.name)
    if link_in(request) is not None:
        return "a link"
    token = token_in(request.headers.get("Authorization", "").encode("latin-1"))
    if token is None:
        return None
    parsed = parse_token(token)
    if parsed is None:
        return "not a token" if parse_signature(token.decode("latin-1")) is None else "a link"
    return f"token {parsed[0]}"


async def judge_again(request: Request, services: Services) -> None:
    """Authorize a long request again, right before something is stored: its token may have been revoked or have expired
    meanwhile.
    """
    allowed: Allowed = request.state.allowed
    await allowed.judge(request, services)


async def _shown(request: Request, services: ServicesDep) -> Grant:
    header = request.headers.get("Authorization", "").encode("latin-1")  # as Starlette decoded it
    session = None if header else session_in(request)
    if session is not None:
        return await _of_session(request, services, session)
    token = token_in(header)
    grant = await (services.access.of_nobody() if token is None else services.access.of_token(token))
    if grant is None:
        asked = "This server requires a token: send Authorization: Bearer TOKEN."
        detail = "The token is invalid, expired or revoked." if header else asked
        raise HTTPException(401, detail, {"WWW-Authenticate": CHALLENGE})
    return grant


async def _of_session(request: Request, services: Services, session: str) -> Grant:
    """Return the grant of a browser's session. It changes something only where a page of ours surely asks for it: the
    browser sends the cookie by itself.
    """
    grant = await services.access.of_session(session)
    if grant is None:
        # Basic would make the browser ask for a password, over the page that could lead to the sign-in.
        raise HTTPException(401, "The session has ended: sign in again.", {"WWW-Authenticate": BEARER})
    if grant != OPEN:
        request.state.by_session = True
        if request.method not in SAFE and not is_own_page(request):
            raise CrossSite(COOKIE_WRITES)
    return grant


async def grant_of(request: Request) -> Grant:
    grant: Grant = request.state.grant
    return grant


Caller = Annotated[Grant, Depends(grant_of)]

_SCHEMES: list[Dependency] = [
    Depends(HTTPBase(scheme="bearer", scheme_name="HTTPBearer", auto_error=False, description="A token.")),
    Depends(
        HTTPBase(
            scheme="basic",
            scheme_name="HTTPBasic",
            auto_error=False,
            description="Any user name; the password is a token.",
        )
    ),
]
_LINK = Depends(
    APIKeyQuery(
        name=SIGNATURE,
        scheme_name="Link",
        auto_error=False,
        description="Part of a URL made by `POST .../links/...`; use that URL unchanged.",
    )
)
"""Security schemes for the OpenAPI document and /docs, which refuse nothing."""


def _declaration(allowed: Allowed) -> list[Dependency]:
    schemes = [*_SCHEMES, _LINK] if allowed.link else _SCHEMES
    return [*schemes, Depends(allowed), Depends(known_parameters)]


READ = _declaration(Allowed(Scope.READ))
WRITE = _declaration(Allowed(Scope.WRITE))
ADMIN = _declaration(Allowed(Scope.ADMIN))
DOWNLOAD = _declaration(Allowed(Scope.READ, link=True))
EVERYWHERE = _declaration(Allowed(Scope.READ, everywhere=True))
ADMIN_EVERYWHERE = _declaration(Allowed(Scope.ADMIN, everywhere=True))
PAGE: list[Dependency] = [Depends(Allowed(Scope.READ))]
"""READ for the pages for people, which the OpenAPI document does not describe: they ignore unknown parameters."""
WRITE_PAGE: list[Dependency] = [Depends(Allowed(Scope.WRITE))]
UPLOAD_LINK: list[Dependency] = [Depends(Allowed(Scope.WRITE, link=True))]
"""WRITE for an upload of the Hub's protocol, whose clients send no token but a link."""
XET_UPLOAD: list[Dependency] = [Depends(AllowedByXet(Scope.WRITE))]
"""WRITE for an upload by Xet, whose clients show a link as a token."""
ADMIN_PAGE: list[Dependency] = [Depends(Allowed(Scope.ADMIN))]
AUDIT_PAGE: list[Dependency] = [Depends(Allowed(Scope.ADMIN, everywhere=True))]


def without_declaration(routes: Iterable[BaseRoute]) -> set[str]:
    """Return the paths of routes without a declaration, which anybody may use."""

    def declares(dependant: Dependant) -> bool:
        return any(isinstance(each.call, Allowed) for each in dependant.dependencies)

    return {route.path for route in routes if isinstance(route, APIRoute) and not declares(route.dependant)}
