"""Maintenance tasks: the sweep, compaction, fsck and recovery."""
