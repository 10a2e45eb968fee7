"""Codes of errors that no answer has."""

NEVER_ON_THE_WIRE = {
    *("bad-database-url", "catalog-newer", "sweep-stopped", "cancelled"),
    *("bad-limit", "conflict", "gone", "refused-checkpoint"),
}
"""Codes of a server that does not start, of a sweep, and of requests whose client has gone; and those of what is
refused before, or always with a code that says more.
"""
