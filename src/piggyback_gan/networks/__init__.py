"""Generators, discriminators and their configuration."""
