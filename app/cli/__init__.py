"""The commands' options, and the token commands."""
