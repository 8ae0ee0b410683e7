"""How data sets of videos with poses lie on disk: one file a family."""
