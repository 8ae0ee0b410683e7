"""The letters that name tensor axes throughout the package. Imports nothing of ours.

====== =====================================================================
letter axis
====== =====================================================================
B      clips in a batch
T      frames of a clip; one frame is one time step of the neurons
C      channels (C = heads * d)
H, W   height and width in pixels or feature-map cells
N      tokens of one attention sequence (T*H*W, H*W or T by design)
h, d   attention heads and the width of one head
D      levels of an Integer-LIF neuron (1 for binary neurons)
====== =====================================================================

Users pass videos as ``[B, T, C, H, W]``; everything inside the backbone is time first,
``[T, B, C, H, W]``, because only time is recurrent and ``flatten(0, 1)`` then gives the
convolutions one plain image batch without a copy.
"""

from typing import Literal

Design = Literal["joint", "hierarchical", "factorized", "neuron_only", "spatial_only"]
"""Space-time designs that the paper compares."""

AttentionKind = Literal["hamming", "dot", "softmax", "none"]
"""Spike-driven Hamming attention (SDHA), or the dot product (SDSA) that it replaces; of ordinary
networks softmax, or none: convolutions in its place."""
