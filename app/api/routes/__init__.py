"""The routes, in one module for each kind of resource."""
