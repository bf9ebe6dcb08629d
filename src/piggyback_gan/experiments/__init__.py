"""Lifelong experiments: strategies side by side on one sequence of tasks, and what they cost and keep."""
