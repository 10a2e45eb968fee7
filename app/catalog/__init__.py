"""The catalog: the only package with SQL.

Queries are functions over a session (``checkpoints.resolve(session, ...)``), grouped by noun. They return values.
"""

from .catalog import Catalog
from .listener import Listener
from .session import ReadSession, WriteSession

__all__ = ["Catalog", "Listener", "ReadSession", "WriteSession"]
