"""Proposition 3.1 of the paper in numbers: what Hamming similarity keeps of the cosine."""
