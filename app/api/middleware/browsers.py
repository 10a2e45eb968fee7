"""Middleware that keeps web pages of other sites out, and lets allowed origins in (CORS)."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...errors import StateroomError
from ..problems import Problem, of_status, problem_of
from ..services import Services
from .sites import Host, Sites, parse_host

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_SHOWN = (
    "Accept-Ranges, Content-Disposition, Content-Length, Content-Location, Content-Range, ETag, "
    "Idempotency-Replayed, Location, Repr-Digest, Retry-After, Stateroom-Checkpoint, Stateroom-Dtype, "
    "Stateroom-Left-Out, Stateroom-Shape, X-Request-Id"
)
_PREFLIGHT_SECONDS = 600

SECURITY_HEADERS = (("X-Content-Type-Options", "nosniff"), ("Cross-Origin-Resource-Policy", "same-origin"))
"""Headers of every response: a page elsewhere cannot use uploaded bytes as a script or an image."""


class Browsers:
    """Middleware that checks the Host and the origin of each request before routing.

    A request needs one valid Host. A server without tokens answers only to its own names, because a page can't have
    those. A page of another site cannot write, unless the server has tokens and the request has ``Authorization:
    Bearer``: no browser adds that by itself, while a browser remembers Basic credentials and sends them along.
    """

    def __init__(self, app: ASGIApp, sites: Sites) -> None:
        self.app = app
        self.sites = sites

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = await self._refusal(scope, headers)
        if refused is not None:
            await refused.response()(scope, receive, send)
            return
        if not self.sites.origins:
            await self.app(scope, receive, send)
            return
        origin = headers.get("origin")
        shared = origin if origin is not None and self.sites.lets_in(origin) else None

        async def marked_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields = MutableHeaders(scope=message)
                fields.add_vary_header("Origin")
                if shared is not None:
                    fields["Access-Control-Allow-Origin"] = shared
                    fields["Access-Control-Expose-Headers"] = _SHOWN
            await send(message)

        if shared is not None and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _preflight(headers)(scope, receive, marked_send)
        else:
            await self.app(scope, receive, marked_send)

    async def _refusal(self, scope: Scope, headers: Headers) -> Problem | None:
        try:
            host = parse_host(headers.getlist("host"), scope["http_version"])
        except ValueError as error:
            return of_status(400, str(error))
        is_own = host is None or self.sites.answers_to(host)
        origin = ", ".join(headers.getlist("origin")) or None
        writes = scope["method"] not in _SAFE
        is_foreign = writes and self.sites.is_foreign(host, origin, headers.get("sec-fetch-site"))
        if is_own and not is_foreign:
            return None
        services: Services = scope["app"].state.services
        try:
            is_open = await services.access.is_open()
        except StateroomError as error:
            return problem_of(error)
        if is_open and not is_own:
            return _unknown_host(host)
        by_bearer = headers.get("authorization", "").lower().startswith("bearer ")
        return _cross_site(origin) if is_foreign and (is_open or not by_bearer) else None


def _preflight(headers: Headers) -> Response:
    answer = {"Access-Control-Allow-Methods": _METHODS, "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS)}
    if asked := headers.get("access-control-request-headers"):
        answer["Access-Control-Allow-Headers"] = asked
    if headers.get("access-control-request-private-network") == "true":
        answer["Access-Control-Allow-Private-Network"] = "true"
    return Response(status_code=204, headers=answer)


def _unknown_host(host: Host | None) -> Problem:
    name = "" if host is None else host.name[:100]
    detail = (
        f"The host {name!r} is not allowed: this server has no tokens, so a web page could reach it by that name. "
        f"Set STATEROOM_ALLOWED_HOSTS={name} to allow it, or make a token: stateroom-server token add NAME."
    )
    return Problem(403, "The host is not allowed", detail, "unknown-host")


def _cross_site(origin: str | None) -> Problem:
    page = "A web page of another site" if origin is None else f"A web page of {origin[:100]}"
    detail = f"{page} may not write to this server. Add its origin to STATEROOM_ALLOWED_ORIGINS to allow it."
    return Problem(403, "Writes by web pages of other sites are not allowed", detail, "cross-site")
