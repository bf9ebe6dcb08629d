"""A bank as an HTTP server: all its tasks, and a page to try them."""
