"""Keys that the dot product of spikes cannot tell apart, and Hamming similarity can."""

from dataclasses import dataclass

import torch

from spikevideoformer.ops.hamming import hamming_similarity_reference

Bits = tuple[int, ...]

WIDTH = 16


@dataclass(frozen=True, kw_only=True)
class Collision:
    """One query and four keys of one dot product and four Hamming similarities.

    Attributes:
        query: 0/1.
        keys: 0/1 each, as long as the query; fewest spikes first.
        dot: number of common spikes, q.k, of each key.
        hamming: share of equal bits of each key.
    """

    query: Bits
    keys: tuple[Bits, ...]
    dot: tuple[int, ...]
    hamming: tuple[float, ...]


def find_collision(seed: int = 0) -> Collision:
    """Draw a query and such keys.

    For a query bit 0 the dot product ignores the key bit. So each key has half of the query's
    spikes, and more and more spikes where the query has none.

    Args:
        seed: decides which bits.
    """
    generator = torch.Generator().manual_seed(seed)
    half = WIDTH // 2
    places = torch.randperm(WIDTH, generator=generator)
    fires, silent = places[:half], places[half:]
    query = torch.zeros(WIDTH)
    query[fires] = 1
    keys = torch.zeros(4, WIDTH)
    for key, strays in zip(keys, (0, 3, 5, 8), strict=True):
        key[fires[torch.randperm(half, generator=generator)[: half // 2]]] = 1
        key[silent[torch.randperm(half, generator=generator)[:strays]]] = 1
    hamming = hamming_similarity_reference(query[None], keys)[0].tolist()
    dot = (keys @ query).int().tolist()
    assert len(set(dot)) == 1 and len(set(hamming)) == 4
    return Collision(
        query=tuple(query.int().tolist()),
        keys=tuple(tuple(key) for key in keys.int().tolist()),
        dot=tuple(dot),
        hamming=tuple(hamming),
    )
