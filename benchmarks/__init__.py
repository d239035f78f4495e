"""Measurements of speed and accuracy, each run as `python -m benchmarks.<name>`."""
