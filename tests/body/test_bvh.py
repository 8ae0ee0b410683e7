"""BVH files: against a reader written in another way, there and back, and what is refused."""

import gzip
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from spikevideoformer.body import bvh
from spikevideoformer.body.bvh import BvhError, read_bvh, write_bvh
from spikevideoformer.body.motion import Motion, drop_root
from spikevideoformer.body.rotations import EULER_ORDERS, geodesic_distance, matrix_from_6d
from spikevideoformer.body.skeleton import Skeleton

SMALL = """\
HIERARCHY
ROOT Hips
{
  OFFSET 0 90 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Spine
  {
    OFFSET 0 20 0
    CHANNELS 3 Yrotation Xrotation Zrotation
    End Site
    {
      OFFSET 0 10 1
    }
  }
  JOINT Leg_L
  {
    OFFSET 10 0 0
    CHANNELS 6 Xrotation Zrotation Yrotation Zposition Xposition Yposition
    End Site
    {
      OFFSET 0 -80 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.05
1 2 3 90 0 0 10 20 30 -10 20 30 300 100 200
4 5 6 0 90 0 0 0 0 0 0 0 0 0 0
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.bvh"
    path.write_text(SMALL)
    return path


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "motion.bvh"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def channel_values(path: Path) -> NDArray[np.float64]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as file:
        return np.loadtxt(file.read().partition("Frame Time:")[2].splitlines()[1:], ndmin=2)


def independent_joints(path: Path) -> tuple[list[str], list[int], NDArray[np.float64]]:
    """Names, parents and positions in the file's unit: recursion over 4 x 4 matrices in numpy.

    A position that a joint has channels for replaces its offset.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as file:
        head, _, tail = file.read().partition("MOTION")
    words = head.split()
    frames = np.array([[float(x) for x in line.split()] for line in tail.splitlines()[3:]])
    names: list[str] = []
    parents: list[int] = []
    places: list[NDArray[np.float64]] = []
    column = 0

    def elementary(axis: str, degrees: NDArray[np.float64]) -> NDArray[np.float64]:
        matrix = np.tile(np.eye(4), (len(degrees), 1, 1))
        i, j = {"X": (1, 2), "Y": (2, 0), "Z": (0, 1)}[axis]
        matrix[:, i, i] = matrix[:, j, j] = np.cos(np.radians(degrees))
        matrix[:, j, i] = np.sin(np.radians(degrees))
        matrix[:, i, j] = -matrix[:, j, i]
        return matrix

    def joint(at: int, parent: int, above: NDArray[np.float64]) -> int:
        """Read the joint whose name is words[at]; return where the words go on."""
        nonlocal column
        number = len(names)
        names.append(words[at])
        parents.append(parent)
        shift = np.tile([float(x) for x in words[at + 3 : at + 6]], (len(frames), 1))
        count = int(words[at + 7])
        turn = np.tile(np.eye(4), (len(frames), 1, 1))
        for channel in words[at + 8 : at + 8 + count]:
            if channel.endswith("position"):
                shift[:, "XYZ".index(channel[0])] = frames[:, column]
            else:
                turn = turn @ elementary(channel[0], frames[:, column])
            column += 1
        move = np.tile(np.eye(4), (len(frames), 1, 1))
        move[:, :3, 3] = shift
        world = above @ move @ turn
        places.append(world[:, :3, 3])
        at += 8 + count
        while words[at] != "}":
            at = at + 8 if words[at] == "End" else joint(at + 1, number, world)
        return at + 1

    joint(2, -1, np.tile(np.eye(4), (len(frames), 1, 1)))
    assert column == frames.shape[1]
    return names, parents, np.stack(places, 1)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> dict[Path, Motion]:
    """Twenty motions, of all contents and styles."""
    files = sorted((shared_data / "mocap").glob("*.bvh.gz"))
    if not files:
        pytest.skip("needs the motions in ../shared/data/mocap, which are absent")
    return {path: read_bvh(path) for path in files[:: len(files) // 20][:20]}


# --- Reading -------------------------------------------------------------------------------------


def test_small_file_by_hand(small: Path) -> None:
    motion = read_bvh(small)
    skeleton = motion.skeleton
    assert skeleton.joint_names == ("Hips", "Spine", "Leg_L")
    assert skeleton.parents == (-1, 0, 0)
    assert skeleton.end_offsets["Spine"] == pytest.approx((0, 0.1, 0.01))
    assert motion.orders == ("ZXY", "YXZ", "XZY")
    assert motion.frame_rate_hz == pytest.approx(20)
    torch.testing.assert_close(motion.translation[0], torch.tensor([0.01, 0.02, 0.03]).double())
    # A quarter turn about z takes the spine from up to -x; the leg's own place is (1, 2, 3) m.
    joints = torch.tensor([[0.01, 0.02, 0.03], [-0.19, 0.02, 0.03], [-1.99, 1.02, 3.03]])
    torch.testing.assert_close(motion.joints()[0], joints.double())
    # About x: from up to z.
    joints = torch.tensor([[0.04, 0.05, 0.06], [0.04, 0.05, 0.26], [0.04, 0.05, 0.06]])
    torch.testing.assert_close(motion.joints()[1], joints.double())


def test_a_root_without_positions_stays_at_its_offset(tmp_path: Path) -> None:
    text = "HIERARCHY ROOT a { OFFSET 1 2 3 CHANNELS 3 Xrotation Yrotation Zrotation }"
    path = written(tmp_path, f"{text}\nMOTION\nFrames: 1\nFrame Time: 1\n0 0 0\n")
    assert read_bvh(path, unit="m").translation.tolist() == [[1, 2, 3]]


def test_what_other_programs_write(tmp_path: Path, small: Path) -> None:
    text = SMALL.replace("\n", "\r\n").replace("ROOT Hips\r\n{", "ROOT Hips{")
    text = "\ufeff" + text.replace("Xposition", "XPOSITION").replace(
        "OFFSET 0 20 0", "Offset 0 2e1 .0"
    )
    path = written(tmp_path, text.replace("Frame Time:", "Frame Time:\t") + "\r\n\r\n")
    torch.testing.assert_close(read_bvh(path).joints(), read_bvh(small).joints())
    packed = tmp_path / "motion.bvh.gz"
    packed.write_bytes(gzip.compress(small.read_bytes()))
    assert torch.equal(read_bvh(packed).joints(), read_bvh(small).joints())


@pytest.mark.parametrize(("unit", "metres"), [("m", 1), ("mm", 0.001), ("inch", 0.0254)])
def test_units(small: Path, unit: bvh.Unit, metres: float) -> None:
    torch.testing.assert_close(
        read_bvh(small, unit=unit).joints(), read_bvh(small).joints() * 100 * metres
    )


def test_unknown_options(small: Path) -> None:
    read: Callable[..., Motion] = read_bvh.__wrapped__  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="unit must be one of m, cm, mm, inch, got 'ft'"):
        read(small, unit="ft")


def test_real_files_against_the_independent_reader(
    shared_data: Path, real: dict[Path, Motion]
) -> None:
    assert len(real) == 20
    for path, motion in real.items():
        names, parents, expected = independent_joints(path)
        assert list(motion.skeleton.joint_names) == names
        assert list(motion.skeleton.parents) == parents
        bones = list(range(2, len(parents)))
        length = np.linalg.norm(
            expected[0, bones] - expected[0, [parents[j] for j in bones]], axis=1
        )
        for joints in (
            motion.joints(),
            # without the channels that only repeat the offsets
            drop_root(motion).skeleton.joints(
                drop_root(motion).rotations, drop_root(motion).translation
            ),
        ):
            error = np.linalg.norm(100 * joints[:, -20:].numpy() - expected[:, bones], axis=2)
            assert (error < 1e-4 * length).all()


def test_real_bones_keep_their_length(shared_data: Path, real: dict[Path, Motion]) -> None:
    for whole in real.values():
        motion = drop_root(whole)
        joints = motion.joints()
        length = (joints[:, 1:] - joints[:, motion.skeleton.parents[1:]]).norm(dim=-1)
        assert (length.amax(0) - length.amin(0) < 1e-4 * length[0]).all()
        assert (length > 0.03).all() and (length < 0.5).all()
        assert motion.skeleton.joint_names[0] == "Hips"
        assert 0.5 < motion.translation[:, 1].median() < 1.1  # metres above the floor


# --- The dummy root ------------------------------------------------------------------------------


def test_drop_root_leaves_joints_where_they_are() -> None:
    skeleton = Skeleton(
        ["World", "Hips", "Spine"], [-1, 0, 1], [[0.0] * 3, [0.0, 1.0, 0.0], [0.0, 0.5, 0.0]]
    )
    motion = Motion(
        skeleton=skeleton,
        rotations=matrix_from_6d(torch.randn(4, 3, 6, dtype=torch.float64)),
        translation=torch.randn(4, 3, dtype=torch.float64),
        frame_rate_hz=30.0,
        orders=("XYZ", "ZXY", "ZYX"),
    )
    for positions in ({}, {1: torch.randn(4, 3).double()}, {2: torch.randn(4, 3).double()}):
        whole = replace(motion, positions=positions)
        dropped = drop_root(whole)
        assert dropped.skeleton.joint_names == ("Hips", "Spine")
        assert dropped.orders == ("ZXY", "ZYX")
        torch.testing.assert_close(dropped.joints(), whole.joints()[:, 1:])
    with pytest.raises(ValueError, match="the root Spine has 0 children"):
        drop_root(drop_root(dropped))


# --- Writing -------------------------------------------------------------------------------------


def test_there_and_back(small: Path, tmp_path: Path) -> None:
    motion = read_bvh(small)
    path = tmp_path / "back.bvh"
    write_bvh(path, motion)
    back = read_bvh(path)
    assert back.skeleton.to_dict() == motion.skeleton.to_dict()
    assert (back.orders, back.frame_rate_hz) == (motion.orders, motion.frame_rate_hz)
    torch.testing.assert_close(back.joints(), motion.joints())
    assert geodesic_distance(back.rotations, motion.rotations).rad2deg().max() < 1e-5
    again = tmp_path / "again.bvh"
    write_bvh(again, back)
    assert again.read_bytes() == path.read_bytes()


def test_the_written_text(small: Path, tmp_path: Path) -> None:
    small.write_text(edited("10 20 30 -10 20 30", "10 0 0 -10 0 0"))
    motion = replace(read_bvh(small), positions={}, orders=None)
    write_bvh(tmp_path / "back.bvh", motion)
    assert (
        (tmp_path / "back.bvh").read_text()
        == """\
HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Spine
  {
    OFFSET 0 20 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 10 1
    }
  }
  JOINT Leg_L
  {
    OFFSET 10 0 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 -80 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.05
1 2 3 90 0 0 0 0 10 0 -10 0
4 5 6 0 90 0 0 0 0 0 0 0
"""
    )


def test_real_files_there_and_back(
    shared_data: Path, real: dict[Path, Motion], tmp_path: Path
) -> None:
    compared = []
    for path, motion in list(real.items())[::3]:
        write_bvh(tmp_path / "back.bvh", motion)
        back = read_bvh(tmp_path / "back.bvh")
        apart = geodesic_distance(motion.rotations, back.rotations).rad2deg()
        assert apart.max() < 1e-3
        torch.testing.assert_close(back.joints(), motion.joints(), rtol=0, atol=1e-6)
        # The channels themselves, where the file has principal values well away from gimbal lock.
        there, here = channel_values(path), channel_values(tmp_path / "back.bvh")
        assert there.shape == here.shape
        there, here = (x.reshape(len(x), -1, 2, 3) for x in (there, here))
        np.testing.assert_allclose(here[:, :, 0], there[:, :, 0], atol=1e-4)
        angles = there[:, :, 1]
        plain = (np.abs(angles) < 180).all(-1) & (np.abs(angles[..., 1]) < 89)
        np.testing.assert_allclose(here[:, :, 1][plain], angles[plain], atol=1e-3)
        compared.append(plain.mean())
    assert min(compared) > 0.8


@pytest.mark.parametrize("order", EULER_ORDERS)
def test_any_order_and_any_list_of_joints(order: str, tmp_path: Path) -> None:
    """Breadth first, as SMPL lists its joints: the file has them from the top down."""
    names = "Hips Left Right Left2 Right2".split()
    skeleton = Skeleton(names, [-1, 0, 0, 1, 2], torch.randn(5, 3, dtype=torch.float64))
    motion = Motion(
        skeleton=skeleton,
        rotations=matrix_from_6d(torch.randn(7, 5, 6, dtype=torch.float64)),
        translation=torch.randn(7, 3, dtype=torch.float64),
        frame_rate_hz=29.97,
        positions={3: torch.randn(7, 3, dtype=torch.float64)},
        orders=(order,) * 5,
        unit="m",
    )
    write_bvh(tmp_path / "a.bvh", motion)
    back = read_bvh(tmp_path / "a.bvh", unit="m")
    assert back.skeleton.joint_names == ("Hips", "Left", "Left2", "Right", "Right2")
    assert back.orders == motion.orders
    assert back.frame_rate_hz == pytest.approx(29.97, rel=1e-9)
    found = [back.skeleton.joint_names.index(name) for name in names]
    torch.testing.assert_close(back.joints()[:, found], motion.joints(), rtol=0, atol=1e-5)
    # nobody lost an end: leaves without one get one of no length
    assert back.skeleton.end_offsets == {"Left2": (0, 0, 0), "Right2": (0, 0, 0)}


def test_deep_skeletons_need_no_stack(tmp_path: Path) -> None:
    skeleton = Skeleton(
        [f"j{j}" for j in range(1000)], range(-1, 999), torch.ones(1000, 3).double()
    )
    motion = Motion(
        skeleton=skeleton,
        rotations=torch.eye(3).double().repeat(1, 1000, 1, 1),
        translation=torch.zeros(1, 3).double(),
        frame_rate_hz=1.0,
    )
    write_bvh(tmp_path / "deep.bvh", motion)
    assert read_bvh(tmp_path / "deep.bvh").joints()[0, -1].tolist() == pytest.approx([999] * 3)


# --- What is refused -----------------------------------------------------------------------------


def edited(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new, 1)


CHANNELS = "6 Xposition Yposition Zposition Zrotation Xrotation Yrotation"
LAST = "4 5 6 0 90 0 0 0 0 0 0 0 0 0 0\n"

MALFORMED: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", ":0: the file ends where HIERARCHY should come; get it whole"),
    "other text": ("solid cube\n", ":1: 'solid' stands where HIERARCHY should"),
    "no root": (edited("ROOT", "JOINT"), ":2: 'JOINT' stands where ROOT should"),
    "two roots": (edited("MOTION", "ROOT b\n{"), ":25: 'ROOT' stands where MOTION should"),
    "name of two words": (edited("Spine", "My Spine"), ":6: 'Spine' stands where { should; join"),
    "no name": (edited("JOINT Spine", "JOINT"), ":7: joint name '{' is a brace"),
    "same name": (edited("Leg_L", "Spine"), ":15: joint name 'Spine' is .* there twice; rename"),
    "no offset": (edited("    OFFSET 0 20 0\n", ""), ":13: joint Spine has no OFFSET before"),
    "short offset": (edited("OFFSET 0 20 0", "OFFSET 0 20"), ":9: 'CHANNELS' is no finite number"),
    "no channels": (
        edited("    CHANNELS 3 Yrotation Xrotation Zrotation\n", ""),
        ":13: joint Spine has no CHANNELS before its children or end; add the line",
    ),
    "second channels": (
        edited("  JOINT Spine", f"  CHANNELS {CHANNELS}\n  JOINT Spine"),
        ":6: 'CHANNELS' is unknown or there twice in joint Hips",
    ),
    "channels missing": (
        edited("Xrotation Zrotation\n", "Xrotation\n"),
        ":10: 'End' is no channel",
    ),
    "too many channels": (
        edited("Xrotation Zrotation\n", "Xrotation Zrotation Xposition\n"),
        ":9: 'Xposition' is unknown or there twice in joint Spine; a joint has OFFSET",
    ),
    "two channels": (
        edited("CHANNELS 3 Yrotation", "CHANNELS 2"),
        ":9: joint Spine has '2' channels",
    ),
    "channel count": (
        edited("CHANNELS 3", "CHANNELS three"),
        ":9: joint Spine has 'three' channels",
    ),
    "same channel": (
        edited("Yrotation Xrotation Z", "Yrotation Xrotation X"),
        ":9: 'Xrotation' is no",
    ),
    "unknown channel": (edited("3 Yrotation", "3 Wrotation"), ":9: 'Wrotation' is no channel"),
    "no rotations": (
        edited("3 Yrotation Xrotation Zrotation", "3 Xposition Yposition Zposition"),
        ":9: joint Spine has no three rotations",
    ),
    "unknown keyword": (
        edited("    End Site", "    SCALE 3\n    End Site"),
        ":10: 'SCALE' is unknown",
    ),
    "end of no site": (
        edited("End Site", "End Effector"),
        ":10: 'Effector' stands where Site should",
    ),
    "end not closed": (edited("    }\n  }", "  }"), ":24: 'MOTION' is unknown"),
    "braces not closed": (edited("}\nMOTION", "MOTION"), ":24: 'MOTION' is unknown or there twice"),
    "brace too many": (edited("}\nMOTION", "}\n}\nMOTION"), ":25: '}' stands where MOTION should"),
    "cut in the joints": (SMALL[:120], ":6: the file ends where { should come; get it whole"),
    "no motion": (SMALL.partition("MOTION")[0], ":24: the file ends where MOTION should come"),
    "no frames": (edited("Frames: 2", "Frames: 0"), ":26: '0' is no number of frames"),
    "frames in words": (edited("Frames: 2", "Frames: two"), ":26: 'two' is no number of frames"),
    "fewer lines": (SMALL.removesuffix(LAST), ":28: the file ends where frame 2 of 2 should come"),
    "many frames": (
        edited("Frames: 2", "Frames: 999999999"),
        ":29: the file ends where frame 3 of",
    ),
    "more lines": (SMALL + "\n" + LAST, ":31: more lines than the 2 frames announced; correct"),
    "zero frame time": (edited("Time: 0.05", "Time: 0"), r":27: a frame takes 0.0 s; give the sec"),
    "no frame time": (edited("Time: 0.05", "Time: 1e-320"), r":27: a frame takes 1e-320 s"),
    "negative frame time": (edited("Time: 0.05", "Time: -1"), r":27: a frame takes -1.0 s"),
    "two frame times": (
        edited("Time: 0.05", "Time: 0.05 0"),
        ":27: '0' stands where the line should",
    ),
    "short frame": (edited(LAST, LAST[2:]), ":29: frame 2 has 14 numbers; give 15, one for each"),
    "long frame": (edited(LAST, "0 " + LAST), ":29: frame 2 has 16 numbers; give 15"),
    "nan": (edited("4 5 6 0 90", "4 5 6 nan 90"), ":29: 'nan' is no finite number; correct it"),
    "infinity": (edited("4 5 6 0 90", "4 5 6 -inf 90"), ":29: '-inf' is no finite number"),
    "overflow": (edited("4 5 6 0 90", "4 5 6 1e999 90"), ":29: '1e999' is beyond 1000000; correct"),
    "comma": (edited("4 5 6 0 90", "4 5 6 0,5 90"), ":29: '0,5' is no finite number"),
    "underscore": (edited("4 5 6 0 90", "4 5 6 1_0 90"), ":29: '1_0' is no finite number"),
    "nan offset": (edited("OFFSET 0 20 0", "OFFSET 0 NaN 0"), ":8: 'NaN' is no finite number"),
    "long word": (
        edited("4 5 6 0 90", f"4 5 6 {'x' * 9999} 90"),
        r":29: 'x{40}\.\.\.' is no finite",
    ),
    "long line": (SMALL + " " * 10 + "0 " * 200_000, ":30: more lines than the 2 frames"),
    "one line": (b"HIERARCHY " * 50_000, ":1: more than 262144 letters in a line; give a BVH file"),
    "many joints": (
        "HIERARCHY ROOT r {"
        + "\n".join(
            f" OFFSET 0 0 0 CHANNELS 3 Xrotation Yrotation Zrotation JOINT j{j} {{"
            for j in range(1001)
        ),
        ":1000: more than 1000 joints; leave some out",
    ),
    "no text": (b"HIERARCHY\nROOT \xff\xfe\x00\n", ":2: is no text in UTF-8; give a BVH file"),
    "cut gzip": (gzip.compress(SMALL.encode())[:-20], r": cannot be read \(.*\); copy it again"),
    "broken gzip": (b"\x1f\x8b\x08\x00" + bytes(30), r": cannot be read \(.*\); copy it again"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files(name: str, tmp_path: Path) -> None:
    content, message = MALFORMED[name]
    path = written(tmp_path, content)
    with pytest.raises(BvhError, match=re.escape(str(path)) + message) as caught:
        read_bvh(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_what_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bvh, "_MOST_BYTES", 2**20)
    path = written(tmp_path, gzip.compress(bytes(2**24)))
    assert path.stat().st_size < 2**15
    with pytest.raises(BvhError, match="is more than 1 MiB of text; cut the motion into files"):
        read_bvh(path)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(BvhError, match=r"no.bvh: cannot be read \(.*No such file.*\)"):
        read_bvh(tmp_path / "no.bvh")


def test_motions_check_themselves(small: Path) -> None:
    motion = read_bvh(small)
    rotations = motion.rotations.clone()
    rotations[0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"rotations must be finite and \(2, 3, 3, 3\)"):
        replace(motion, rotations=rotations)
    with pytest.raises(
        ValueError, match=r"rotations must be .*2 frames and 3 joints, got \(2, 2, "
    ):
        replace(motion, rotations=motion.rotations[:, :2])
    with pytest.raises(ValueError, match=r"positions are of joints 1 to 2, got \[0\]"):
        replace(motion, positions={0: motion.translation})
    with pytest.raises(ValueError, match="orders must be 3 of XYZ"):
        replace(motion, orders=("ZXY",))
    with pytest.raises(ValueError, match="frame_rate_hz must be above 0, got inf"):
        replace(motion, frame_rate_hz=math.inf)
