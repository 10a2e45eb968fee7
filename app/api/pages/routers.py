"""The routers of all pages."""

from . import (
    checkpoint,
    curves,
    diff,
    events,
    model,
    models,
    namespaces,
    selection,
    sign_in,
    static,
    tensors,
    trash,
    upload,
)

PUBLIC = static.PUBLIC | sign_in.PUBLIC
"""The routes that are open to all, by their paths."""

ROUTERS = tuple(
    module.router
    for module in (
        models,
        model,
        curves,
        checkpoint,
        tensors,
        selection,
        diff,
        trash,
        events,
        upload,
        namespaces,
        sign_in,
        static,
    )
)
