"""Metrics of generated images and what computes them."""
