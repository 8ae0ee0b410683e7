"""Rotations, skeletons and body models, and motion-capture files: what the pose task stands on."""
