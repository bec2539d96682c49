"""What a comparison begins with: simple models on the same images."""
