"""Planning, receiving and caching downloads. No torch."""
