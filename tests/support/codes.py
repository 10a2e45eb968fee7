"""Error codes that no HTTP answer has."""

NEVER_ON_THE_WIRE = {
    *("bad-database-url", "catalog-newer", "catalog-foreign", "sweep-stopped", "cancelled"),
    *("bad-limit", "conflict", "gone", "refused-checkpoint"),
}
"""Codes of a server that does not start, of a sweep, of requests whose client has gone, and of errors that are refused
earlier or always have a more specific code.
"""
