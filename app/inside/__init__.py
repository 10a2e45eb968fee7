"""Looking inside: which tensors of two checkpoints differ, and the numbers of a tensor's elements."""
