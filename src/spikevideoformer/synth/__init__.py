"""Clips that are made: of motions, of moving shapes, and rendered."""
