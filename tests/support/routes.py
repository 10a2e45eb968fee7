"""Every route of the server, from its OpenAPI document."""

import re

from app.api import application
from app.api.metrics import Metrics

DOCUMENT = application.build("0", Metrics()).openapi()

OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
"""Method and path of each route, in the document's order."""


def address(path: str) -> str:
    values = {
        "namespace": "a",
        "name": "b",
        "ref": "1",
        "other": "2",
        "alias": "prod",
        "webhook": "wh0",
        "token": "trainer",
        "filename": "x.pt",
        "key": "conv.weight",
        "path": "config.json",
        "upload_id": "abc",
        "number": "1",
        "first": "0",
        "end": "1",
    }
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], path)
