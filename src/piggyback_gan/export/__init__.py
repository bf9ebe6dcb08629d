"""A task as a file that needs neither a bank nor this library."""
