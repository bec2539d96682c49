"""Faster training on a GPU: Triton kernels, lanes that train side by side, and captured steps."""

# Lanes, if the user gives no number; PyTorch has 32 streams, so that more lanes share them. It stands here because
# an evaluator that only hands out jobs does without torch, whose import takes 3.5 s.
MOST = 64
