"""Rendering of templates, and the headers of every page. Everything that a template prints is escaped."""

import gzip
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...access.grants import OPEN
from ...values.token import Scope
from . import text
from .addresses import Addresses
from .sparkline import sparkline
from .static import HAS_CHARTS, takes_gzip

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",  # with no-referrer, a form would be posted with Origin: null
}
"""Headers of a page: it runs our own scripts, and nothing else, even if a text were taken for markup."""

_WORTH_PACKING = 1000


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {each.__name__: each for each in (text.shown, text.number, text.count, text.size, text.ago, text.exact)}
    )
    environment.filters["until"] = text.until
    environment.globals["sparkline"] = sparkline
    return environment


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    **values: Any,
) -> Response:
    """Render ``template`` with ``values`` as the answer to ``request``."""
    grant = getattr(request.state, "grant", None)
    html = (
        _environment()
        .get_template(template)
        .render(
            at=Addresses.of(request),
            grant=None if grant == OPEN else grant,
            may_write=grant is not None and grant.scope.covers(Scope.WRITE),
            may_admin=grant is not None and grant.scope.covers(Scope.ADMIN),
            signed_in=getattr(request.state, "by_session", False),
            version=request.app.version,
            has_charts=HAS_CHARTS,
            **values,
        )
    )
    return packed(
        request,
        html.encode(),
        "text/html; charset=utf-8",
        {"Cache-Control": "private, no-cache", **SECURITY, **(headers or {})},
        status,
    )


def packed(request: Request, body: bytes, media_type: str, headers: dict[str, str], status: int = 200) -> Response:
    """Return ``body``, in gzip where that is worth it and the client takes it."""
    headers = {"Vary": "Accept-Encoding, Cookie", **headers}
    if len(body) >= _WORTH_PACKING and takes_gzip(request):
        body, headers = gzip.compress(body, 6, mtime=0), {**headers, "Content-Encoding": "gzip"}
    return Response(body, status, headers, media_type)
