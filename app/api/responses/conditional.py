"""Conditional requests (RFC 9110, 13): If-Match, If-None-Match and If-Range.

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
    """Tell whether If-Match allows a request on a resource with this ETag (strong comparison; None: no resource)."""
    if if_match is None:
        return True
    if if_match.strip() == "*":
        return etag is not None
    return any(not match[1] and match[2] == etag for match in _ENTITY_TAG.finditer(if_match))


def range_applies(if_range: str | None, etag: str) -> bool:
    """Tell whether to honour a Range: there is no If-Range, or one with this ETag (strong comparison).

    A date never applies: nothing here has a Last-Modified.
    """
    return if_range is None or if_range.strip() == f'"{etag}"'
