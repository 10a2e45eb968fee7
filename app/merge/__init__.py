"""Merges: a checkpoint that is computed from the tensors of others."""
