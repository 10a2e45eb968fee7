"""The format in which Xet sends files: chunks of files in xorbs, and the files' composition in shards.

References: https://huggingface.co/docs/xet, and draft-denis-xet. Only what an upload needs is here.
"""
