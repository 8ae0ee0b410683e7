"""How data sets of frames with masks lie on disk: one file a family."""
