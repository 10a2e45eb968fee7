"""Selection from a checkpoint, as pure functions: components, keys, names, and the match with a target.

The order is the contract's: component, strip_prefix, include and exclude, rename, add_prefix. ``query`` holds the
request, ``components`` finds its state_dict, ``keys`` picks and renames, ``warmstart`` compares with a model.
"""
