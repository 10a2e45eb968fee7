"""The cookie of a browser's session, and what tells that a request comes from a page of ours."""

from fastapi import Request

from ..middleware import sites

COOKIE_WRITES = (
    "A browser's session may change something only from a page of this server, and the request does not say that it "
    "comes from one: send it from a page, or with Authorization: Bearer TOKEN."
)


def session_cookie(request: Request) -> str:
    """Return the name of our cookie, which holds the port: all ports of a host share their cookies."""
    host = _host(request)
    return f"stateroom_session_{host.port}" if host is not None and host.port else "stateroom_session"


def session_in(request: Request) -> str | None:
    """Return the session that a browser shows, None without one."""
    return request.cookies.get(session_cookie(request))


def is_own_page(request: Request) -> bool:
    """Return whether a page of this server surely sent the request."""
    origin = ", ".join(request.headers.getlist("origin")) or None
    return sites.is_own_page(_host(request), origin, request.headers.get("sec-fetch-site"))


def _host(request: Request) -> sites.Host | None:
    return sites.parse_host(request.headers.getlist("host"), request.scope["http_version"])
