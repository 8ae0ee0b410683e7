"""Modules over the ops: neurons, convolutions, attention."""
