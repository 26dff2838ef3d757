"""Benchmarks, and what reads MLflow: run from the repository root with `python -m analysis.<name>`."""
