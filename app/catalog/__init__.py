"""The catalog: all SQL, and nothing else that knows of it.

What is asked of it are functions over a session (``checkpoints.resolve(session, ...)``), grouped by noun; what comes
out are values.
"""

from .catalog import Catalog
from .session import ReadSession, WriteSession

__all__ = ["Catalog", "ReadSession", "WriteSession"]
