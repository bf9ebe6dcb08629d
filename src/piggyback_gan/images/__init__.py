"""Image files to tensors and back, without loss."""
