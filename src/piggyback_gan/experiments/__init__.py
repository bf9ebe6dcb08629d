"""Lifelong experiments: compare strategies on one sequence of tasks by quality, forgetting and cost."""
