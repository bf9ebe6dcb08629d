"""Run the parts of an experiment."""
