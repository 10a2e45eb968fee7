"""Splitting, pickling and sending what is saved."""
