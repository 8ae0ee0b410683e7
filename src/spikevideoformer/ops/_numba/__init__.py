"""CPU kernels, compiled on first use by numba; loaded by ``ops/_kernels.py`` only."""
