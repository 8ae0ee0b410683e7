"""Losses and metrics, one file per task, in plain torch."""
