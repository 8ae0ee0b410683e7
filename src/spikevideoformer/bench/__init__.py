"""Benchmarks: ours beside what it replaces, in turn in one process, equivalence first."""
