"""TorchScript archives: programs with their weights. Only the weights are read."""
