"""The square goes with the person: found in a mask, kept by the joints, found again when lost."""

from pathlib import Path

import numpy as np

from spikevideoformer.tasks.pose.follow import Follower, overlap, person_finder, squares_of
from spikevideoformer.tasks.pose.square import Square
from spikevideoformer.video.frames import iter_frames

PICTURE = np.zeros((100, 200, 3), np.uint8)
SMALL, LARGE = Square(left=20, top=10, side=20), Square(left=120, top=20, side=40)


def body(square: Square) -> np.ndarray:
    """Joints whose square this is, and one outside of the picture."""
    margin = square.side * 0.1
    low, high = margin, square.side - margin
    corners = np.array([[low, low], [high, high]]) + np.array([square.left, square.top])
    return np.vstack([corners, [[1000.0, 50.0]]])


def test_patches_of_a_mask_become_squares() -> None:
    mask = np.zeros((96, 192), bool)
    mask[10:30, 20:24] = mask[60:92, 100:116] = True
    mask[50, 50] = True  # noise
    found = squares_of(mask)
    assert [(s.left, s.top, s.side) for s in found] == [(88, 56, 40), (10, 8, 25)]
    assert squares_of(np.zeros((5, 7), bool)) == []
    mask[:] = True
    assert squares_of(mask)[0].side == 240


def test_it_begins_with_the_largest_and_goes_with_the_joints() -> None:
    follower = Follower(lambda _image: [LARGE, SMALL], None)
    assert follower.square(PICTURE, 0.0) == LARGE
    there = LARGE.moved(1.0, 0.2, 0)
    follower.saw(body(there), 100, 200)
    assert follower.square(PICTURE, 0.2) == there
    follower.saw(body(Square(left=0, top=0, side=400)) / 4, 100, 200)
    assert follower.square(PICTURE, 0.3).side == 60  # 1.5 times as large at most
    follower.saw(np.full((3, 2), np.nan), 100, 200)
    assert follower.square(PICTURE, 0.4).side == 60


def test_who_is_in_the_square_draws_it() -> None:
    follower = Follower(lambda _image: [LARGE, SMALL], LARGE.moved(1.0, 0.2, -0.1))
    assert follower.square(PICTURE, 0.0) == LARGE.moved(1.0, 0.1, -0.05)


def test_joints_alone_do_not_make_it_collapse_nor_others_take_it() -> None:
    follower = Follower(lambda _image: [SMALL], LARGE)
    for k in range(9):
        assert follower.square(PICTURE, float(k)).side >= LARGE.side / 2
        follower.saw(body(Square(left=140, top=40, side=2)), 100, 200)
    assert overlap(follower.square(PICTURE, 9.0), LARGE) > 0.2
    assert person_finder("cpu")(np.zeros((1, 500, 3), np.uint8)) == []  # quickly


def test_nobody_in_the_square_but_elsewhere() -> None:
    found = [[LARGE, SMALL], [SMALL], []]
    follower = Follower(lambda _image: found.pop(0), None)
    assert follower.square(PICTURE, 0.0) == LARGE
    assert follower.square(PICTURE, 0.4) == LARGE  # twice a second
    assert follower.square(PICTURE, 1.0) == SMALL
    assert follower.square(PICTURE, 2.0) == SMALL  # hidden for a moment


def test_until_there_is_somebody_the_whole_picture_is_looked_at() -> None:
    found = [[], [SMALL]]
    follower = Follower(lambda _image: found.pop(0), None)
    assert follower.square(PICTURE, 0.0) == Square.of_picture(100, 200)
    follower.saw(body(LARGE), 100, 200)  # of nobody
    assert not follower.sees_somebody
    assert follower.square(PICTURE, 1.0) == SMALL
    assert follower.sees_somebody


def test_the_mask_of_the_box_finds_a_real_person(shared_data: Path) -> None:
    video = shared_data / "people/real/head-pose-face-detection-female.gif"
    image = next(iter_frames(video)).image
    (square, *others) = person_finder("cpu")(image)
    height, width = image.shape[:2]
    assert not others
    assert square.side > height / 3
    assert abs(square.left + square.side / 2 - width / 2) < width / 4  # she sits in the middle
