"""The FastAPI application: all routes and middleware. Its services are made elsewhere."""

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.types import Lifespan

from ..values.tracing import Tracer
from . import problems
from .hub import lfs, tags, write, xet
from .hub import read as hub
from .metrics import Metrics
from .middleware.browsers import Browsers
from .middleware.drain import Drain
from .middleware.normalize import Normalize
from .middleware.proxies import Proxies
from .middleware.sites import Sites
from .middleware.telemetry import Telemetry
from .openapi.document import Shown, document_of
from .openapi.problems import OF_ANY, refusals
from .pages import routers as pages
from .requests.auth import without_declaration
from .routes import (
    aliases,
    checkpoints,
    events,
    files,
    folder,
    health,
    history,
    inside,
    lineage,
    links,
    loose_files,
    merge,
    models,
    namespaces,
    negotiated,
    one_tensor,
    pins,
    retention,
    state_dicts,
    tensors,
    tokens,
    trash,
    uploads,
    webhooks,
)

PUBLIC = health.PUBLIC | pages.PUBLIC
"""The routes that are open to all, by their paths."""

DESCRIPTION = "A checkpoint service for PyTorch that knows what is inside a checkpoint and never runs a pickle."


def include(app: FastAPI, router: APIRouter) -> None:
    """Add the routes of ``router`` themselves: a router that FastAPI includes makes its routes again in each
    application, at the first request. Raises RuntimeError for a route that doesn't declare who may use it.
    """
    if open_to_all := without_declaration(router.routes) - PUBLIC:
        raise RuntimeError(f"these routes do not declare who may use them: {', '.join(sorted(open_to_all))}")
    for route in router.routes:
        if isinstance(route, APIRoute):
            route.responses = {**refusals(*OF_ANY), **route.responses}
        app.router.routes.append(route)


def build(
    version: str,
    metrics: Metrics,
    lifespan: Lifespan[FastAPI] | None = None,
    sites: Sites | None = None,
    proxies: Proxies | None = None,
    tracer: Tracer | None = None,
) -> FastAPI:
    """Build the application. Its lifespan sets ``app.state.services`` before the first request."""
    app = FastAPI(
        title="Stateroom",
        description=DESCRIPTION,
        version=version,
        lifespan=lifespan,
        redirect_slashes=False,  # a redirected upload would be sent twice
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it sends queries, and so links' signatures
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    app.add_middleware(Normalize)
    app.add_middleware(Browsers, sites=sites or Sites())
    app.add_middleware(Drain)
    app.add_middleware(  # the last one added is outermost
        Telemetry, metrics=metrics, proxies=proxies or Proxies(), tracer=tracer
    )
    for module in (
        health,
        tokens,
        namespaces,
        models,
        history,
        retention,
        uploads,
        merge,
        negotiated,
        loose_files,
        checkpoints,
        trash,
        pins,
        aliases,
        events,
        webhooks,
        lineage,
        tensors,
        one_tensor,
        inside,
        state_dicts,
        files,
        folder,
        links,
        hub,
        lfs,
        write,
        tags,
        xet,
    ):
        include(app, module.router)
    for router in pages.ROUTERS:
        include(app, router)
    document = document_of(app)
    app.openapi = lambda: document  # type: ignore[method-assign]  # FastAPI's way to extend it; many requests ask it
    shown = Shown(document)
    app.add_route("/openapi.json", shown.as_json, include_in_schema=False)
    app.add_route("/docs", shown.as_page, include_in_schema=False)
    app.add_route("/redoc", shown.elsewhere, include_in_schema=False)
    return app
