"""What a request picks out of a checkpoint, as pure functions: components, keys, names, and the match with a target.

The order is the contract's: component, strip_prefix, include and exclude, rename, add_prefix. ``query`` holds what was
asked, ``components`` finds the state_dict it means, ``keys`` picks and renames, ``warmstart`` compares with a model.
"""
