"""Signing in with a token, and signing out. A browser then shows a session's cookie in place of the token.

The cookie has no Path, so a browser takes that of the sign-in page: the path that a proxy puts before us, which we do
not know. Its name holds our port, because cookies are shared by all ports of a host.
"""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response

from ...access.grants import OPEN, Grant
from ...catalog import sessions
from ...errors import CrossSite
from ...notify.refusals import Refusal
from ...values.session import LIFETIME, new_session, session_id
from ...values.token import parse_token
from ..requests.auth import address_of
from ..requests.bodies import RequestBody
from ..requests.cookies import COOKIE_WRITES, is_own_page, session_cookie, session_in
from ..services import Services, ServicesDep
from .route import PageRoute
from .templates import page

PUBLIC = frozenset({"/sign-in", "/sign-out"})

MAX_FORM = 8 * 1024

router = APIRouter(include_in_schema=False, route_class=PageRoute)

Next = Annotated[str, Query(alias="next", max_length=4096)]


@router.get("/sign-in")
async def form(request: Request, services: ServicesDep, after: Next = "/") -> Response:
    """Ask for a token, unless there is nothing to sign in to, or somebody is signed in."""
    session = session_in(request)
    if await services.access.is_open() or (session and await services.access.of_session(session)):
        return _to(after)
    return page(request, "sign-in.html", after=after, refused=False, headers={"Cache-Control": "no-store"})


@router.post("/sign-in")
async def sign_in(request: Request, services: ServicesDep, after: Next = "/") -> Response:
    """Start a session with the token in the form."""
    if not is_own_page(request):
        raise CrossSite(COOKIE_WRITES)
    token = await _field(request, "token")
    grant = await services.access.of_token(token.strip().encode(errors="replace"))
    if grant is None:
        parsed = parse_token(token.strip().encode(errors="replace"))
        name = "not a token" if parsed is None else f"token {parsed[0]}"
        services.refusals.note(Refusal(address_of(request), name, "The token is invalid, expired or revoked."))
        headers = {"Cache-Control": "no-store"}
        return page(request, "sign-in.html", status=401, after=after, refused=True, headers=headers)
    return _to(after) if grant == OPEN else await _signed_in(request, services, grant, after)


@router.post("/sign-out")
async def sign_out(request: Request, services: ServicesDep) -> Response:
    """End the session, wherever it is used."""
    if not is_own_page(request):
        raise CrossSite(COOKIE_WRITES)
    id_ = session_id(session_in(request) or "")
    if id_ is not None:

        def work() -> None:
            with services.catalog.write() as w:
                sessions.end(w, id_)

        await services.asks.run(partial(services.room.freeing, work))
    answer = _to("/sign-in")
    answer.set_cookie(session_cookie(request), "", max_age=0, path=None, httponly=True, samesite="strict")
    return answer


async def _signed_in(request: Request, services: Services, grant: Grant, after: str) -> Response:
    session, text = new_session(grant.maker, grant.seal, datetime.now(UTC))

    def work() -> None:
        with services.catalog.write() as w:
            sessions.add(w, session)

    await services.asks.run(partial(services.room.freeing, work))
    answer = _to(after)
    # A proxy may speak TLS for us; what the browser sees is in the form's Origin.
    secure = request.headers.get("Origin", "").startswith("https://")
    lifetime = int(LIFETIME.total_seconds())
    answer.set_cookie(
        session_cookie(request), text, lifetime, path=None, secure=secure, httponly=True, samesite="strict"
    )
    return answer


def _to(after: str) -> Response:
    """Redirect to a path of this server. Anything else, such as another server's address, leads to the start page."""
    is_local = after.startswith("/") and not after.startswith("//") and after.isascii() and after.isprintable()
    path = after[1:] if is_local and "\\" not in after and " " not in after else ""
    return Response(status_code=303, headers={"Location": f"./{path}", "Cache-Control": "no-store"})


async def _field(request: Request, name: str) -> str:
    """Return a field of a form that was posted."""
    chunks = [chunk async for chunk in RequestBody(request, MAX_FORM).chunks()]
    fields = parse_qs(b"".join(chunks).decode(errors="replace"))
    return fields.get(name, [""])[0]
