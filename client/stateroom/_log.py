"""The client's logger, which shows only warnings unless it is configured otherwise.

Warning: a server is away or busy. Info: an upload or a download takes another path than the usual one. Debug: bytes
that came from the cache.
"""

import logging

LOG = logging.getLogger("stateroom")
