"""The write path: receive, index, digest, commit. An interrupted upload leaves nothing behind."""
