"""The demo: synthetic scenes, three tasks, one report."""
