"""Segments of a path, and the values they stand for."""

from urllib.parse import quote


def path_value(segment: str) -> str:
    """One segment of a routed path, with its slashes."""
    return segment.replace("%2F", "/")


def path_segment(value: str) -> str:
    """A value as one segment of a URL."""
    return quote(value, safe=":@!$&'()*+,;=~")
