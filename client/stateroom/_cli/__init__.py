"""The stateroom command."""
