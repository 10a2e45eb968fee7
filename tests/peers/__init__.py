"""Other people's test suites, run through Stateroom: each ``torch.load`` in them reads what a server serves.

``make peers`` gets the suites from Debian's sources and the package index, keeps them in ``build/peers``, and compares
each read with that of stock torch. It asks the network the first time, so it is no part of ``make test``.
"""
