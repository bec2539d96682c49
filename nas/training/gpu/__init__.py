"""Faster training on a GPU: Triton kernels, lanes that train side by side, and captured steps."""
