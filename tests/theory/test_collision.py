"""Keys of one dot product, counted bit by bit."""

from spikevideoformer.theory.collision import find_collision


def test_one_dot_product_four_similarities() -> None:
    for seed in range(5):
        found = find_collision(seed)
        assert len(found.keys) == 4
        for key, dot, hamming in zip(found.keys, found.dot, found.hamming, strict=True):
            assert dot == sum(a and b for a, b in zip(found.query, key, strict=True))
            assert hamming == sum(a == b for a, b in zip(found.query, key, strict=True)) / len(key)
        assert len(set(found.dot)) == 1
        assert found.dot[0] > 0
        assert len(set(found.hamming)) == 4


def test_a_seed_decides_the_bits() -> None:
    assert find_collision(1) == find_collision(1) != find_collision(2)
