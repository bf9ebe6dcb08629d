"""Data sets in folders: layouts, splits and crops."""
