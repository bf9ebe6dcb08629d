"""Read image files as arrays and tensors, and write them, without loss."""
