"""Stateroom, the server: a checkpoint service for PyTorch that never runs a pickle."""
