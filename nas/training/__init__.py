"""Training: the training loop, recipes, and networks as PyTorch modules."""
