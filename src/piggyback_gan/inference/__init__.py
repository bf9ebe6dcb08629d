"""Translate images with a generator, whole or in tiles."""
