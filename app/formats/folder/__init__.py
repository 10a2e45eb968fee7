"""Folders of files, each stored as one zip file without compression."""
