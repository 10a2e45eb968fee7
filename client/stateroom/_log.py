"""The client's log, which says nothing below a warning unless it is asked to.

Warnings: a server that is away or busy. Info: an upload or a download that goes another way than the usual one. Debug:
what came out of the cache.
"""

import logging

LOG = logging.getLogger("stateroom")
