"""The routers of all pages."""

from . import checkpoint, curves, events, model, models, namespaces, sign_in, static, trash, upload

PUBLIC = static.PUBLIC | sign_in.PUBLIC
"""The routes that are open to all, by their paths."""

ROUTERS = tuple(
    module.router
    for module in (
        models,
        model,
        curves,
        checkpoint,
        trash,
        events,
        upload,
        namespaces,
        sign_in,
        static,
    )
)
