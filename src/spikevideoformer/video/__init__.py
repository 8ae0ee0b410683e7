"""Video: opened, decoded, sampled and written."""
