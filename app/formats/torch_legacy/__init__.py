"""Torch's format before 1.6 (``_use_new_zipfile_serialization=False``): pickles back to back, then storages."""
