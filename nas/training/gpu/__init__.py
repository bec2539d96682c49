"""What a GPU does in its own way: kernels, lanes, captured steps."""
