"""The square of a picture that the network sees."""

import numpy as np
import pytest
import torch

from spikevideoformer.tasks.pose.square import Square

HEIGHT, WIDTH = 48, 64


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(48, 64, (0, -8, 64)), (64, 48, (-8, 0, 64)), (30, 30, (0, 0, 30)), (3, 6, (0, -2, 6))],
)
def test_square_of_a_picture_shows_all_of_it(
    height: int, width: int, expected: tuple[int, int, int]
) -> None:
    square = Square.of_picture(height, width)
    assert (square.left, square.top, square.side) == expected


def test_square_of_a_person() -> None:
    points = np.array([[10, 20], [30, 60], [np.nan, 500], [20, np.nan]])
    square = Square.of_person(points)
    assert square == Square(left=-5, top=15, side=50)  # 1.25 times 40, around (20, 40)
    assert Square.of_person(points.reshape(2, 2, 2)) == square
    assert Square.of_person(points[2:]) is None
    assert Square.of_person(points[:1]) == Square(left=9, top=19, side=2)


def test_moved_squares() -> None:
    square = Square(left=10, top=20, side=40)
    assert square.moved(1.0, 0.0, 0.0) == square
    assert square.moved(0.5, 0.25, -0.1) == Square(left=30, top=26, side=20)
    assert square.moved(1e-9, 0.0, 0.0).side == 2


def test_points_go_into_the_input() -> None:
    square = Square(left=-8, top=4, side=50)
    corners = np.array([[-8.0, 4.0], [42.0, 54.0], [17.0, 29.0]])
    np.testing.assert_allclose(square.to_input(corners, 32), [[0, 0], [32, 32], [16, 16]])


@pytest.mark.parametrize(("left", "top"), [(5, 3), (0, 0), (-7, -4), (50, 40), (-7, 40), (30, -9)])
def test_a_cut_is_the_part_of_the_picture(left: int, top: int) -> None:
    pictures = torch.randint(256, (2, HEIGHT, WIDTH, 3), dtype=torch.uint8)
    margin = torch.tensor([1.0, 2.0, 3.0])
    cut = Square(left=left, top=top, side=16).cut(pictures, 16, margin).permute(0, 2, 3, 1)
    for y in range(16):
        for x in range(16):
            row, column = top + y, left + x
            there = 0 <= row < HEIGHT and 0 <= column < WIDTH
            expected = pictures[:, row, column] if there else margin.byte().expand(2, 3)
            assert torch.equal(cut[:, y, x], expected)


@pytest.mark.parametrize(("left", "top"), [(-40, 0), (0, -40), (64, 0), (0, 48), (200, -200)])
def test_a_cut_outside_of_the_picture_is_margin(left: int, top: int) -> None:
    pictures = torch.full((1, HEIGHT, WIDTH, 3), 255, dtype=torch.uint8)
    cut = Square(left=left, top=top, side=32).cut(pictures, 16, torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(cut, torch.tensor([1, 2, 3]).byte().view(1, 3, 1, 1).expand(1, 3, 16, 16))
