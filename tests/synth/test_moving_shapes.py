"""The embedded masks: exact, by outline alone, and the same on disk as in memory."""

import csv
import math

import numpy as np
import pytest
from PIL import Image

from spikevideoformer.synth.moving_shapes import (
    _TEXTURES,
    CLASSES,
    PALETTE,
    _paint,
    _Piece,
    render_scene,
    write_scene_video,
    write_scenes,
)
from spikevideoformer.video.frames import iter_frames, probe

SIZE = 64


def piece(kind, *, x=32.0, y=32.0, angle=0.0, radius=12.0, texture="checks", colours=None):
    """A piece over one frame, by default in the middle of the picture."""
    return _Piece(
        kind=kind,
        x=np.array([x]),
        y=np.array([y]),
        angle=np.array([angle]),
        radius=np.array([radius]),
        texture=texture,
        period=0.8,
        offset=(0.0, 0.0),
        colours=np.array([[0.2, 0.4, 0.6], [0.9, 0.7, 0.1]] if colours is None else colours),
    )


def masked(*pieces):
    """The mask of one frame by class names."""
    return np.array(CLASSES)[_paint([piece("ground"), *pieces], SIZE)[1][0]]


CORNERS = {  # in radii, y down
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0.0, -1.5), (1.5 * math.sqrt(0.75), 0.75), (-1.5 * math.sqrt(0.75), 0.75)],
    "cross": [
        *[(-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)],
        *[(0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)],
    ],
}


def inside(kind, x, y, radius):
    """Whether a point is in an upright shape around 0: by crossing edges, or by the circles."""
    if kind == "disc":
        return x * x + y * y < radius**2
    if kind == "ring":
        return (0.6 * radius) ** 2 < x * x + y * y < (1.2 * radius) ** 2
    corners = [(radius * a, radius * b) for a, b in CORNERS[kind]]
    crossings = 0
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        crossings += (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    return crossings % 2 == 1


@pytest.mark.parametrize("kind", CLASSES[1:])
def test_mask_is_the_shape_at_the_centres_of_pixels(kind):
    x, y, angle, radius = 30.3, 33.8, 0.4, 11.7
    mask = masked(piece(kind, x=x, y=y, angle=angle, radius=radius))
    for row in range(SIZE):
        for column in range(SIZE):
            right, down = column + 0.5 - x, row + 0.5 - y
            upright = (
                math.cos(angle) * right + math.sin(angle) * down,
                math.cos(angle) * down - math.sin(angle) * right,
            )
            expected = kind if inside(kind, *upright, radius) else "ground"
            assert mask[row, column] == expected, (row, column)


@pytest.mark.parametrize(
    ("kind", "area"),
    [
        ("disc", math.pi),
        ("square", 1.8**2),
        ("triangle", 1.5**2 * math.sqrt(27) / 4),
        ("ring", math.pi * (1.2**2 - 0.6**2)),
        ("cross", 2 * 2.4 * 0.8 - 0.8**2),
    ],
)
def test_area_of_shapes(kind, area):
    """Of all about the same, so that classes are balanced."""
    pixels = (masked(piece(kind, radius=20.0, angle=0.3)) == kind).sum()
    assert pixels == pytest.approx(area * 20.0**2, rel=0.02)
    assert area == pytest.approx(math.pi, rel=0.1)


def test_pieces_hide_what_is_behind_and_a_ring_shows_it_through_its_hole():
    disc, square = piece("disc", x=28.0), piece("square", x=36.0)
    assert masked(disc, square)[32, 32] == "square"
    assert masked(square, disc)[32, 32] == "disc"
    ring = piece("ring", radius=14.0)
    assert masked(ring)[32, 32] == "ground" and masked(ring)[32, 32 + 13] == "ring"
    assert masked(piece("disc"), ring)[32, 32] == "disc"
    assert (masked(ring, piece("square", radius=25.0)) != "ring").all()


def test_a_shape_partly_outside_the_picture_is_cut_and_one_far_away_is_absent():
    assert masked(piece("disc", x=0.0))[32, 0] == "disc"
    assert (masked(piece("disc", x=-40.0)) == "ground").all()


@pytest.mark.parametrize("texture", _TEXTURES)
def test_picture_has_the_colours_of_its_pieces_and_blends_them_only_along_outlines(texture):
    black, white = np.zeros((2, 3)), np.ones((2, 3))
    image, mask = _paint(
        [piece("ground", colours=black), piece("disc", texture=texture, colours=white)], SIZE
    )
    # a pixel whose centre is in the disc is mostly white, and the other way round
    assert np.array_equal(image[..., 0] > 0.5, mask > 0)
    row, column = np.mgrid[:SIZE, :SIZE] + 0.5
    far = np.abs(np.hypot(row - 32, column - 32) - 12) > 0.5
    assert set(np.unique(image[0][far])) == {0.0, 1.0}
    assert image.sum(axis=(1, 2))[0, 0] == pytest.approx(math.pi * 144, rel=0.01)


@pytest.mark.parametrize("texture", _TEXTURES)
def test_textures_go_between_the_two_colours_and_turn_with_the_piece(texture):
    colours = [[0.2, 0.4, 0.6], [0.9, 0.7, 0.1]]
    plain, _ = _paint([piece("ground", texture=texture, radius=20.0)], SIZE)
    turned, _ = _paint([piece("ground", texture=texture, radius=20.0, angle=np.pi / 2)], SIZE)
    for channel in range(3):
        low, high = sorted(colour[channel] for colour in colours)
        assert plain[..., channel].min() >= low - 1e-9
        assert plain[..., channel].max() <= high + 1e-9
    assert plain.std(axis=(0, 1, 2)).min() > 0.02
    np.testing.assert_allclose(turned[0], np.rot90(plain[0], -1), atol=1e-9)


def test_seed_decides_everything_and_dropout_only_what_is_hidden():
    images, masks = render_scene(3, dropout=0.0)
    assert images.shape == (16, 64, 64, 3) and images.dtype == np.uint8
    assert masks.shape == (16, 64, 64) and masks.dtype == np.uint8
    again = render_scene(3, dropout=0.0)
    assert np.array_equal(images, again[0]) and np.array_equal(masks, again[1])
    assert not np.array_equal(masks, render_scene(4)[1])

    half, half_masks = render_scene(3, dropout=0.5)
    assert np.array_equal(masks, half_masks)
    same = [np.array_equal(a, b) for a, b in zip(images, half, strict=True)]
    assert 3 <= sum(same) <= 13

    all_hidden, all_masks = render_scene(3, dropout=1.0)
    assert np.array_equal(masks, all_masks)
    assert np.array_equal(images[0], all_hidden[0])  # the first never


def test_hidden_frames_show_nothing_of_the_scene():
    """The averages of a shape and of the ground are the same in them, and not in the others."""

    def contrast(dropout, seed):
        images, masks = render_scene(seed, dropout=dropout)
        frame, shape = images[5].astype(float), masks[5] > 0
        return np.abs(frame[shape].mean(0) - frame[~shape].mean(0)).max()

    seeds = [s for s in range(20) if (render_scene(s)[1][5] > 0).sum() > 400]
    assert max(contrast(1.0, s) for s in seeds) < 16
    assert np.median([contrast(0.0, s) for s in seeds]) > 50


def test_default_dropout_hides_about_a_tenth_of_the_frames():
    hidden = frames = 0
    for seed in range(40):
        shown, default = render_scene(seed, size=16, dropout=0.0)[0], render_scene(seed, size=16)[0]
        hidden += (shown != default).any(axis=(1, 2, 3)).sum()
        frames += len(shown) - 1
    assert 0.06 < hidden / frames < 0.14


def test_every_class_has_its_share_of_the_pixels():
    masks = np.concatenate([render_scene(seed, frames=4)[1] for seed in range(60)])
    share = np.bincount(masks.ravel(), minlength=len(CLASSES)) / masks.size
    assert share.sum() == pytest.approx(1) and len(share) == len(CLASSES)
    assert share[0] < 0.85
    assert share[1:].min() > 0.03, share


def test_shapes_move():
    for seed in range(10):
        _, masks = render_scene(seed)
        changed = (masks[1:] != masks[:-1]).mean(axis=(1, 2))
        assert (changed > 0).all()
        assert (masks[-1] != masks[0]).mean() > 0.05
        assert changed.max() < 0.2  # but slowly: a frame tells of the next


def test_a_larger_picture_shows_the_same_scene_in_more_detail():
    small, large = render_scene(1, frames=3)[1], render_scene(1, frames=3, size=192)[1]
    assert np.array_equal(large[:, 1::3, 1::3], small)


def test_colour_does_not_tell_one_shape_from_another():
    """The mean colour of each shape in a scene, given to the nearest class mean: about chance."""
    colours, labels = [], []
    shapes = range(1, len(CLASSES))
    for seed in range(300):
        image, mask = render_scene(seed, frames=1, dropout=0.0)
        for label in shapes:
            if (mask == label).sum() >= 40:
                colours.append(image[mask == label].mean(axis=0))
                labels.append(label)
    colours, labels = np.array(colours), np.array(labels)
    learn = np.arange(len(labels)) % 2 == 0
    means = np.stack([colours[learn & (labels == c)].mean(0) for c in shapes])
    nearest = np.linalg.norm(colours[:, None] - means, axis=-1).argmin(1) + 1
    right = [(nearest == c)[~learn & (labels == c)].mean() for c in shapes]
    assert np.mean(right) < 1 / len(shapes) + 0.08
    # a shape's colour does tell it from its neighbours: the pieces of a scene are far apart
    assert colours.std(axis=0).min() > 25


def test_files_hold_the_scenes_exactly(tmp_path):
    write_scenes(tmp_path, train=2, val=1, seed=5)
    folders = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("*/*"))
    assert folders == ["train/000001", "train/000002", "val/000000"]
    for folder in folders:
        images, masks = render_scene(5_000_000 + int(folder[-6:]))
        for kind, expected in (("images", images), ("labels", masks)):
            files = sorted((tmp_path / folder / kind).iterdir())
            assert [f.name for f in files] == [f"{n:06d}.png" for n in range(16)]
            for file, array in zip(files, expected, strict=True):
                with Image.open(file) as picture:
                    assert picture.mode == ("RGB" if kind == "images" else "P")
                    assert np.array_equal(np.asarray(picture), array)


def test_class_table_and_palette(tmp_path):
    write_scenes(tmp_path, train=1, val=1)
    with (tmp_path / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["name"]) for row in rows] == [
        (str(i), n) for i, n in enumerate(CLASSES)
    ]
    colours = [(int(row["r"]), int(row["g"]), int(row["b"])) for row in rows]
    assert colours == list(PALETTE) and len(set(colours)) == len(CLASSES)
    with Image.open(tmp_path / "val/000000/labels/000000.png") as mask:
        drawn = np.asarray(mask.convert("RGB"))
        assert np.array_equal(drawn, np.array(PALETTE)[np.asarray(mask)])


def test_masks_of_some_frames_only(tmp_path):
    write_scenes(tmp_path, train=1, val=1, label_every=6)
    labels = sorted(p.name for p in (tmp_path / "train/000001/labels").iterdir())
    assert labels == ["000000.png", "000006.png", "000012.png"]
    assert len(list((tmp_path / "train/000001/images").iterdir())) == 16


def test_more_clips_to_train_on_leave_the_others_as_they_are(tmp_path):
    for n in (1, 2):
        write_scenes(tmp_path / str(n), train=n, val=1)
    for file in (tmp_path / "1").rglob("*.*"):
        other = tmp_path / "2" / file.relative_to(tmp_path / "1")
        assert file.read_bytes() == other.read_bytes()


def test_video_of_a_scene(tmp_path):
    write_scene_video(tmp_path / "scene.mp4", seed=2)
    assert probe(tmp_path / "scene.mp4").frame_rate_hz == pytest.approx(8.0)
    decoded = np.stack([frame.image for frame in iter_frames(tmp_path / "scene.mp4")])
    images, _ = render_scene(2)
    assert decoded.shape == images.shape
    assert np.abs(decoded.astype(float) - images).mean() < 15  # lossy


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"size": 40}, "size must be a multiple of 16 pixels, at least 16, got 40"),
        ({"size": 0}, "size must be a multiple of 16 pixels, at least 16, got 0"),
        ({"dropout": 1.5}, "dropout must be a probability from 0 to 1, got 1.5"),
        ({"dropout": float("nan")}, "dropout must be a probability"),
    ],
)
def test_scene_of_bad_arguments_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        render_scene(**{"seed": 0, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train": 0}, "each split needs at least one clip"),
        ({"val": 0}, "each split needs at least one clip"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"label_every": 0}, "label_every must be at least 1, got 0"),
    ],
)
def test_data_set_of_bad_arguments_is_refused_before_anything_is_written(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=f"{message}$"):
        write_scenes(tmp_path / "new", **{"train": 1, "val": 1, **wrong})
    assert not (tmp_path / "new").exists()
