"""Conditional requests (RFC 9110, 13): is this still, or already, the representation that the client holds?

ETags here are opaque text without quotes, always strong.
"""

import re

_ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Tell whether If-None-Match names this representation (weak comparison), so that 304 is the answer."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return any(match[2] == etag for match in _ENTITY_TAG.finditer(if_none_match))


def is_unchanged(if_match: str | None, etag: str | None) -> bool:
    """Tell whether If-Match lets a request be performed on what has this ETag now (strong comparison; None: there is
    nothing).
    """
    if if_match is None:
        return True
    if if_match.strip() == "*":
        return etag is not None
    return any(not match[1] and match[2] == etag for match in _ENTITY_TAG.finditer(if_match))


def range_applies(if_range: str | None, etag: str) -> bool:
    """Tell whether a Range is to be honoured: no If-Range, or one with this very ETag (strong comparison).

    A date never applies: nothing here has a Last-Modified.
    """
    return if_range is None or if_range.strip() == f'"{etag}"'
