"""The HTTP layer: routes, their requests and responses, and errors as HTTP problems."""
