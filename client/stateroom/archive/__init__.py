"""Checkpoints as plain files: an export reads without Stateroom, and an import takes what other tools have kept.

    from stateroom import Client
    from stateroom.archive import export_models, import_folder

    export_models(Client(), "everything")
    import_folder(Client(), "everything")

Both go on where they were interrupted, and do nothing twice. No module here is imported by ``stateroom``.
"""

from .exporting import Exported, export_models
from .importing import Imported, import_folder

__all__ = ["Exported", "Imported", "export_models", "import_folder"]
