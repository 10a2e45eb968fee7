"""TorchScript archives: programs with their weights, of which only the weights are read."""
