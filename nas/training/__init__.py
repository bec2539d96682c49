"""How networks are trained: the only training loop, the only ``nn.Module``."""
