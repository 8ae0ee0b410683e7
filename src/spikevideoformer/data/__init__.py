"""Clips on disk: how they are found, decoded, sampled and turned into batches."""
