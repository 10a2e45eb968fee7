"""Checkpoint formats: pure code over given bytes. No I/O, no torch, and never a pickle executed."""
