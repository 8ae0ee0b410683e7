"""Streams and files of events, and the simulated camera."""
