"""How a task is learned. Nothing here writes to disk."""
