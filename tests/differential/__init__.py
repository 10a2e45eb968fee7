"""Two readers of one file: what Stateroom accepts, stock torch reads alike from the original and from our file."""
