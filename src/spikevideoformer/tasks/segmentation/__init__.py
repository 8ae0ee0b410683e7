"""A class for every pixel of every frame."""
