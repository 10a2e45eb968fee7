"""Turning downloads into tensors, objects and loaded modules."""
