"""The write path: receive, index, digest, commit. Whatever stops an upload on the way, nothing of it is left."""
