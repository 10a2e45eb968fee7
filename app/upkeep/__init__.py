"""What runs besides requests."""
