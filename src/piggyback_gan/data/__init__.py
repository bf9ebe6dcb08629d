"""Data sets in folders: layouts, splits, formats, batches of crops."""
