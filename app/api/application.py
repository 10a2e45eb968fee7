"""All routes as one application, on parts that somebody else made."""

from fastapi import Depends, FastAPI
from starlette.types import Lifespan

from . import problems
from .auth import GUARD
from .params import known_parameters
from .routes import checkpoints, files, health, models, state_dicts, tensors, uploads
from .wire import Wire

DESCRIPTION = "A checkpoint service for PyTorch that knows what is inside a checkpoint and never runs a pickle."


def build(version: str, lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """Its lifespan sets ``app.state.services`` before the first request."""
    app = FastAPI(
        title="Stateroom",
        description=DESCRIPTION,
        version=version,
        lifespan=lifespan,
        redirect_slashes=False,  # a redirected upload would be sent twice
        redoc_url=None,
    )
    problems.install(app)
    app.add_middleware(Wire)
    app.include_router(health.router)
    guarded = [*GUARD, Depends(known_parameters)]
    for module in (models, uploads, checkpoints, tensors, state_dicts, files):
        app.include_router(module.router, dependencies=guarded)
    app.openapi()  # every request asks it what there is; the first one need not wait for it to be made
    return app
