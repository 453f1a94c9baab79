"""Measurements: what runs how fast, beside its rivals, in one process; results go to benchmarks/results/."""
