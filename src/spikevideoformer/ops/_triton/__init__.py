"""CUDA kernels in Triton; each file is imported by the op that uses it, when it first does."""
