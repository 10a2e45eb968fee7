"""Names that Python 2 wrote, in Python 3's words: the renames that unpickling applies to protocols below 3."""

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING


def python3_name(module: str, name: str) -> tuple[str, str]:
    """What Python 3 calls ``module.name``; a name that it does not rename comes back as it is."""
    return NAME_MAPPING.get((module, name)) or (IMPORT_MAPPING.get(module, module), name)
