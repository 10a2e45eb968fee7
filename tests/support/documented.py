"""Makes the OpenAPI document, as every server does at its start: what is forked from this process has it."""

from app.api import application
from app.api.metrics import Metrics
from app.version import server_version

application.build(server_version(), Metrics())
