"""Which class a clip is of."""
