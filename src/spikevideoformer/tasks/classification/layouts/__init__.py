"""How data sets of labelled clips lie on disk: one file a family."""
