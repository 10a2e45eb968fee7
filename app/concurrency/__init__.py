"""Sharing threads, memory and time among requests."""
