"""Stateroom in other frameworks: one module for each, which imports its framework when it is imported itself.

No module here is imported by ``stateroom``.
"""
