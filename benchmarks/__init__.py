"""Benchmarks: one file a claim. Each prints a table and writes JSON under benchmarks/results/."""
