"""Pickling, splitting and sending of checkpoints."""
