"""The 3-D pose of a body in every frame."""
