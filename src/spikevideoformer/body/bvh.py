"""Motion capture in BVH files, read and written; Blender and the like open them.

    HIERARCHY
    ROOT Hips
    {
      OFFSET 0 0 0
      CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
      JOINT Spine
      {
        OFFSET 0 15.7 0
        CHANNELS 3 Zrotation Xrotation Yrotation
        End Site
        {
          OFFSET 0 20 0
        }
      }
    }
    MOTION
    Frames: 1
    Frame Time: 0.0333333
    0 93.5 0 1.5 -0.6 0.7 2.5 0 0                one line a frame: the channels from the top down

Angles are in degrees and compose in the order in which the channels are listed. The file does not
say its unit of length. y points up.
"""

from __future__ import annotations

import gzip
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, cast

import torch
from torch import Tensor

from spikevideoformer.body.motion import METRES, Motion, Unit
from spikevideoformer.body.rotations import (
    EulerOrder,
    euler_from_matrix,
    matrix_from_euler,
)
from spikevideoformer.body.skeleton import Skeleton
from spikevideoformer.files import write_text

_USUAL_ORDER: EulerOrder = "ZXY"
_MOST_BYTES = 64 * 2**20  # unpacked: half an hour of 22 joints with positions at 30 Hz
_MOST_JOINTS = 1000
_LONGEST_LINE = 2**18  # six channels of as many joints
_LARGEST = 1e6  # of any number in the file: ten kilometres in cm, thousands of turns
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_WORD = re.compile(r"[{}]|[^\s{}]+")
_CHANNELS = {
    f"{axis}{kind}".lower(): (axis, kind) for axis in "XYZ" for kind in ("position", "rotation")
}


class BvhError(ValueError):
    """A file that is no usable motion: one line with the place and what to do."""


# --- Reading -------------------------------------------------------------------------------------


def read_bvh(path: Path, *, unit: Unit = "cm") -> Motion:
    """Read a motion. The position of a joint replaces its OFFSET, as Blender reads files.

    Args:
        path: a BVH file, as text or compressed with gzip.
        unit: what its lengths are in.

    Raises:
        BvhError: the file cannot be read or is no motion; names the line.
        ValueError: an unknown unit.
    """
    if unit not in METRES:
        raise ValueError(f"unit must be one of {', '.join(METRES)}, got {unit!r}")
    words = _Words(path, _read_text(path))
    joints = _read_hierarchy(words)
    frame_time_s, values = _read_frames(words, sum(len(joint.channels) for joint in joints))

    angles, orders, positions = [], [], {}
    columns = iter(values.unbind(1))
    for number, joint in enumerate(joints):
        channels = {channel: next(columns) for channel in joint.channels}
        order = cast(EulerOrder, "".join(a for a, kind in joint.channels if kind == "rotation"))
        angles.append(torch.stack([channels[axis, "rotation"] for axis in order], 1))
        orders.append(order)
        offset = torch.tensor(joint.offset, dtype=torch.float64)
        if ("X", "position") in channels:
            positions[number] = torch.stack([channels[axis, "position"] for axis in "XYZ"], 1)
        elif number == 0:
            positions[0] = offset.expand(len(values), 3)
    degrees = torch.stack(angles, 1)  # [T, J, 3]
    rotations = torch.empty(*degrees.shape, 3, dtype=torch.float64)
    for order, of in _by_order(orders).items():
        rotations[:, of] = matrix_from_euler(degrees[:, of].deg2rad(), order)
    metres = METRES[unit]
    offsets = metres * torch.tensor([joint.offset for joint in joints], dtype=torch.float64)
    ends = {j.name: [metres * x for x in j.end] for j in joints if j.end is not None}
    return Motion(
        skeleton=Skeleton(
            [joint.name for joint in joints], [joint.parent for joint in joints], offsets, ends
        ),
        rotations=rotations,
        translation=metres * positions.pop(0),
        frame_rate_hz=1 / frame_time_s,
        positions={number: metres * position for number, position in positions.items()},
        orders=tuple(orders),
        unit=unit,
    )


def guess_unit(path: Path) -> Unit:
    """The unit in which the body of a file is as large as a body, the usual one first.

    Raises:
        BvhError: the file cannot be read, or its body has no such size in any unit.
    """
    motion = read_bvh(path, unit="m")
    skeleton = motion.skeleton
    still = torch.eye(3, dtype=torch.float64).expand(len(skeleton.parents), 3, 3)
    joints = skeleton.joints(still, torch.zeros(3, dtype=torch.float64))
    joints = joints[1:] if len(joints) > 1 else joints  # the first may stand for the whole scene
    side = float((joints.amax(0) - joints.amin(0)).amax())  # the height, or a span of arms
    for unit in _UNITS:
        if BODY_M[0] <= side * METRES[unit] <= BODY_M[1]:
            return unit
    raise BvhError(
        f"{path}: its skeleton measures {side:g}, which is no body of {BODY_M[0]} to {BODY_M[1]} m "
        f"in {', '.join(_UNITS)}; give the unit of its lengths"
    )


BODY_M = (0.5, 3.0)
"""How large a body may be, from the first joint to the last."""
_UNITS: tuple[Unit, ...] = ("cm", "m", "mm", "inch")


def _by_order(orders: Iterable[EulerOrder]) -> dict[EulerOrder, list[int]]:
    """The joints of each Euler order, which are computed together."""
    joints: dict[EulerOrder, list[int]] = {}
    for joint, order in enumerate(orders):
        joints.setdefault(order, []).append(joint)
    return joints


@dataclass
class _Joint:
    name: str
    parent: int
    offset: list[float] | None = None
    channels: list[tuple[str, str]] = field(default_factory=list)
    end: list[float] | None = None


class _Words:
    """The words of a file one after the other, and the line that the last one stands in."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self.line = 0
        # Only line feeds end lines, as editors count them: splitlines() knows ten more.
        self._lines = enumerate(text.split("\n"), start=1)
        self._words: Iterator[str] = iter(())

    def fail(self, reason: str) -> NoReturn:
        raise BvhError(f"{self._path}:{self.line}: {reason}")

    def next(self, expected: str) -> str:
        """The next word; `expected` is for the error where the file ends."""
        while (word := next(self._words, None)) is None:
            self._words = iter(_WORD.findall(" ".join(self.next_line(expected))))
        return word

    def next_line(self, expected: str) -> list[str]:
        """The words of the next line that is not blank."""
        for number, line in self._lines:
            if words := line[: _LONGEST_LINE + 1].split():
                self.line = number
                if len(line) > _LONGEST_LINE:
                    self.fail(f"more than {_LONGEST_LINE} letters in a line; give a BVH file")
                return words
        self.fail(f"the file ends where {expected} should come; get it whole")

    def more(self) -> bool:
        """Whether another line follows that is not blank; it is then the last one."""
        for number, line in self._lines:
            if line.strip():
                self.line = number
                return True
        return False

    def end_line(self) -> None:
        """Nothing more may stand in the line of the last word."""
        if word := next(self._words, None):
            self.fail(f"{_quote(word)} stands where the line should end; correct the line")

    def expect(self, *expected: str) -> None:
        for word in expected:
            if (got := self.next(word)).lower() != word.lower():
                self.fail(f"{_quote(got)} stands where {word} should; correct the line")

    def numbers(self, words: list[str]) -> list[float]:
        values = []
        for word in words:
            # float() alone would also take nan, inf and 1_0.
            if not _NUMBER.fullmatch(word):
                self.fail(f"{_quote(word)} is no finite number; correct it")
            values.append(float(word))
            if abs(values[-1]) > _LARGEST:
                self.fail(f"{_quote(word)} is beyond {_LARGEST:.0f}; correct it")
        return values


def _quote(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:40] + "...")


def _read_text(path: Path) -> str:
    """The unpacked text, of bounded size."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            source = gzip.GzipFile(fileobj=file) if packed else file
            content = source.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BvhError(f"{path}: cannot be read ({error}); copy it again") from error
    if len(content) > _MOST_BYTES:
        raise BvhError(
            f"{path}: is more than {_MOST_BYTES // 2**20} MiB of text; cut the motion into files"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BvhError(f"{path}:{line}: is no text in UTF-8; give a BVH file") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_hierarchy(words: _Words) -> list[_Joint]:
    """All joints from the top down. The ones that are open are a list: depth costs no stack."""
    joints: list[_Joint] = []
    names: set[str] = set()

    def begin(parent: int) -> int:
        name = words.next("the name of a joint")
        if name in names or name in "{}":
            words.fail(f"joint name {_quote(name)} is a brace or there twice; rename the joint")
        if len(joints) == _MOST_JOINTS:
            words.fail(f"more than {_MOST_JOINTS} joints; leave some out")
        if (brace := words.next("{")) != "{":
            words.fail(f"{_quote(brace)} stands where {{ should; join words of a name by _")
        names.add(name)
        joints.append(_Joint(name, parent))
        return len(joints) - 1

    def complete(joint: _Joint) -> None:
        if joint.offset is None or not joint.channels:
            words.fail(
                f"joint {joint.name} has no {'CHANNELS' if joint.offset else 'OFFSET'} before its"
                " children or end; add the line"
            )

    words.expect("HIERARCHY", "ROOT")
    inside = [begin(-1)]
    while inside:
        joint = joints[inside[-1]]
        match (word := words.next("a closing brace")).lower():
            case "offset" if joint.offset is None:
                joint.offset = _read_offset(words)
            case "channels" if not joint.channels:
                joint.channels = _read_channels(words, joint.name)
            case "joint":
                complete(joint)
                inside.append(begin(inside[-1]))
            case "end" if joint.end is None:
                words.expect("Site", "{", "OFFSET")
                joint.end = _read_offset(words)
                words.expect("}")
            case "}":
                complete(joint)
                inside.pop()
            case _:
                words.fail(
                    f"{_quote(word)} is unknown or there twice in joint {joint.name}; a joint has"
                    " OFFSET, CHANNELS and then JOINT or End Site"
                )
    return joints


def _read_offset(words: _Words) -> list[float]:
    return words.numbers([words.next("a number") for _ in range(3)])


def _read_channels(words: _Words, joint: str) -> list[tuple[str, str]]:
    count = words.next("the number of channels")
    if count not in ("3", "6"):
        words.fail(
            f"joint {joint} has {_quote(count)} channels; joints with 3 rotations, or with 3"
            " positions and 3 rotations, are read, so export it that way"
        )
    channels = []
    for _ in range(int(count)):
        word = words.next("a channel")
        channel = _CHANNELS.get(word.lower())
        if channel is None or channel in channels:
            words.fail(
                f"{_quote(word)} is no channel or there twice in joint {joint}; name {count} of"
                " Xposition ... Zrotation"
            )
        channels.append(channel)
    if sum(kind == "rotation" for _, kind in channels) < 3:
        words.fail(f"joint {joint} has no three rotations; name Xrotation, Yrotation, Zrotation")
    return channels


def _read_frames(words: _Words, width: int) -> tuple[float, Tensor]:
    """Seconds from frame to frame, and the channels [T, width]."""
    words.expect("MOTION", "Frames:")
    word = words.next("the number of frames")
    if not re.fullmatch(r"\d{1,9}", word, re.ASCII) or not (frames := int(word)):
        words.fail(f"{_quote(word)} is no number of frames; give how many lines follow, at least 1")
    words.end_line()
    words.expect("Frame", "Time:")
    (frame_time_s,) = words.numbers([words.next("the time of a frame")])
    if frame_time_s < 1e-6:
        words.fail(f"a frame takes {frame_time_s} s; give the seconds from frame to frame")
    words.end_line()

    values = array("d")
    for frame in range(frames):
        line = words.next_line(f"frame {frame + 1} of {frames}")
        if len(line) != width:
            words.fail(
                f"frame {frame + 1} has {len(line)} numbers; give {width}, one for each channel"
            )
        values.extend(words.numbers(line))
    if words.more():
        words.fail(f"more lines than the {frames} frames announced; correct the line Frames:")
    return frame_time_s, torch.frombuffer(values, dtype=torch.float64).view(frames, width)


# --- Writing -------------------------------------------------------------------------------------


def write_bvh(path: Path, motion: Motion) -> None:
    """Write a motion as text, whole or not at all.

    The root has position channels, other joints where the motion has positions for them. Joints
    are listed from the top down, so that the order of a file may differ from that of the skeleton.
    Angles are principal values: those of a file that was read may come back whole turns away, or
    as the other three angles of the same rotation.

    Args:
        path: the file; its folder exists.
        motion: the motion.
    """
    skeleton = motion.skeleton
    per_metre = 1 / METRES[motion.unit]
    orders = motion.orders or (_USUAL_ORDER,) * len(skeleton.parents)
    positions = {0: motion.translation, **motion.positions}
    degrees = torch.empty(motion.rotations.shape[:-1], dtype=torch.float64)  # [T, J, 3]
    for order, of in _by_order(orders).items():
        degrees[:, of] = euler_from_matrix(motion.rotations[:, of], order).rad2deg()
    children: list[list[int]] = [[] for _ in orders]
    for joint, parent in enumerate(skeleton.parents[1:], start=1):
        children[parent].append(joint)

    def offset(values: Iterable[float]) -> str:
        return "OFFSET " + " ".join(_decimal(per_metre * x) for x in values)

    lines, columns = ["HIERARCHY"], []
    waiting: list[tuple[int, int]] = [(0, 0)]  # joints and depths; -1: only a brace to close
    while waiting:
        joint, depth = waiting.pop()
        outside, inside = "  " * depth, "  " * (depth + 1)
        if joint < 0:
            lines.append(f"{outside}}}")
            continue
        name = skeleton.joint_names[joint]
        channels = [f"{axis}rotation" for axis in orders[joint]]
        columns.append(degrees[:, joint])
        if joint in positions:
            channels = [f"{axis}position" for axis in "XYZ"] + channels
            columns.insert(-1, per_metre * positions[joint])
        lines += [
            f"{outside}{'JOINT' if joint else 'ROOT'} {name}",
            f"{outside}{{",
            f"{inside}{offset(skeleton.offsets[joint].tolist())}",
            f"{inside}CHANNELS {len(channels)} {' '.join(channels)}",
        ]
        if name in skeleton.end_offsets or not children[joint]:
            end = offset(skeleton.end_offsets.get(name, (0.0, 0.0, 0.0)))
            lines += [f"{inside}End Site", f"{inside}{{", f"{inside}  {end}", f"{inside}}}"]
        waiting.append((-1, depth))
        waiting += [(child, depth + 1) for child in reversed(children[joint])]
    lines += [
        "MOTION",
        f"Frames: {len(motion.translation)}",
        f"Frame Time: {1 / motion.frame_rate_hz:.10g}",
    ]
    lines += [" ".join(map(_decimal, frame)) for frame in torch.cat(columns, 1).tolist()]
    write_text(path, "\n".join(lines) + "\n")


def _decimal(value: float) -> str:
    """Six digits after the point: a millionth of a degree, and at most a micrometre."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
