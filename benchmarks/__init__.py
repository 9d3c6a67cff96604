"""Measurements: `python -m benchmarks.posterior`."""
