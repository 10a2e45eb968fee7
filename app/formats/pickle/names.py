"""Names in a pickle: the check for valid text, and the renames that unpickling applies to protocols below 3."""

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING


def python3_name(module: str, name: str) -> tuple[str, str]:
    """Return Python 3's name for ``module.name``; most names are unchanged."""
    return NAME_MAPPING.get((module, name)) or (IMPORT_MAPPING.get(module, module), name)


def is_unicode(text: str) -> bool:
    """Tell whether a text is free of lone surrogates, which a pickle may hold and no encoding has."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
