"""Conversion between values and path segments."""

from urllib.parse import quote


def path_value(segment: str) -> str:
    """Return the value of a routed path segment, with its slashes."""
    return segment.replace("%2F", "/")


def path_segment(value: str) -> str:
    """Encode a value as one segment of a URL."""
    return quote(value, safe=":@!$&'()*+,;=~")
