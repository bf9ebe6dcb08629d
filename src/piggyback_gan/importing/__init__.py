"""Import trained networks into a bank."""
