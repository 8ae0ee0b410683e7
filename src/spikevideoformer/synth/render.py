"""Motions rendered to pictures with exact joints: what the pose task learns from by default.

A body of shaded round cones in random clothes and proportions stands on a random floor under a
random light, and a random camera that does not move during a clip looks at it. Bones are made
longer or shorter before the skeleton is posed, so that the joints that come with the pictures are
those of the body that was drawn.

A ray through each pixel meets each part of the body; the nearest one is seen. Camera coordinates
are x to the right, y down, z forward, in metres; a point (x, y, z) is seen at
``focal_px * (x, y) / z + centre_px``, where pixel i covers i to i + 1.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from numpy.typing import NDArray

from spikevideoformer.body.motion import Motion
from spikevideoformer.body.skeleton import Skeleton, forward_kinematics
from spikevideoformer.files import write_atomically, write_text
from spikevideoformer.synth.motions import LabelledMotion, clip_starts_s, resampled
from spikevideoformer.synth.performer import dressed
from spikevideoformer.synth.shading import drawn
from spikevideoformer.synth.spec import RenderSpec as RenderSpec
from spikevideoformer.synth.viewpoint import Camera, facing, random_camera
from spikevideoformer.video.frames import write_video

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class RenderedClip:
    """Pictures of a moving body and the truth about it.

    Args:
        pictures: RGB.
        joints_camera: joints in camera coordinates, in metres.
        joints_2d: the same in pixels, x and y.
        visible: whether the joint is inside the picture and no other part of the body is before it.
        rotations: of joints, local to their parents; that of the root in camera coordinates.
        translation: of the root in camera coordinates, in metres. With it and `rotations`,
            `skeleton` gives `joints_camera`.
        skeleton: of the body that was drawn.
        shape: its proportions: logarithms of the lengths of bones relative to the motion's own.
        camera: that looked.
        times_s: of the pictures, from the start of the motion.
    """

    pictures: UInt8[np.ndarray, "T H W 3"]
    joints_camera: Float[np.ndarray, "T J 3"]
    joints_2d: Float[np.ndarray, "T J 2"]
    visible: Bool[np.ndarray, "T J"]
    rotations: Float[np.ndarray, "T J 3 3"]
    translation: Float[np.ndarray, "T 3"]
    skeleton: Skeleton
    shape: Float[np.ndarray, " J"]
    camera: Camera
    times_s: Float[np.ndarray, " T"]


def render_motion(
    motion: Motion, *, seed: int, spec: RenderSpec | None = None, start_s: float = 0.0
) -> RenderedClip:
    """Draw a part of a motion.

    Args:
        motion: the motion, y up; bones have the length that its skeleton says. Joints whose names
            are not those of the Bandai-Namco files are drawn as plain bones. Where it ends before
            the clip, the body stands still.
        seed: proportions, clothes, camera, light and background follow from it; at least 0.
        spec: size and length of the clip; None: the defaults.
        start_s: time in the motion at which the clip starts.

    Raises:
        ValueError: a negative seed, a start outside the motion, or a `view_deg` for a body without
            hips by name.
    """
    spec = spec or RenderSpec()
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if not 0 <= start_s < len(motion.translation) / motion.frame_rate_hz:
        raise ValueError(
            f"start_s is {start_s}, but the motion lasts"
            f" {len(motion.translation) / motion.frame_rate_hz:.3f} s; start inside it"
        )
    rng = np.random.default_rng(seed)
    part = resampled(motion, start_s=start_s, frames=spec.frames, frame_rate_hz=spec.frame_rate_hz)
    shape = _proportions(part.skeleton, rng)
    skeleton = part.skeleton.scaled(shape.exp())
    translation = part.translation * _leg_factor(part, shape)
    offsets = skeleton.offsets.repeat(spec.frames, 1, 1)
    offsets[:, 0] = translation
    places, turns = (
        values.numpy() for values in forward_kinematics(skeleton.parents, part.rotations, offsets)
    )
    body = dressed(skeleton, places, turns, rng)
    azimuths = (0.0, 2 * np.pi)
    if spec.view_deg < 180:
        ahead, reach = facing(skeleton, places), math.radians(spec.view_deg)
        azimuths = (ahead - reach, ahead + reach)
    camera = random_camera(body, spec.size, azimuths, rng)
    pictures, depth = drawn(body, camera, spec, rng)

    joints = places @ camera.rotation.T + camera.translation
    joints_2d = camera.project(joints)
    rotations = part.rotations.numpy().copy()
    rotations[:, 0] = camera.rotation @ rotations[:, 0]
    return RenderedClip(
        pictures=pictures,
        joints_camera=joints,
        joints_2d=joints_2d,
        visible=_visible(joints, joints_2d, depth, body.thickness, spec),
        rotations=rotations,
        translation=joints[:, 0].copy(),
        skeleton=skeleton,
        shape=shape.numpy(),
        camera=camera,
        times_s=start_s + np.arange(spec.frames) / spec.frame_rate_hz,
    )


def _visible(
    joints: Array, joints_2d: Array, depth: Float32[np.ndarray, "T S S"], thickness: Array,
    spec: RenderSpec,
) -> NDArray[np.bool_]:  # fmt: skip
    """Joints whose own part of the body is the nearest thing at their pixel."""
    inside = ((joints_2d >= 0) & (joints_2d < spec.size)).all(-1)
    rays = (joints_2d * spec.supersampling).astype(int).clip(0, spec.size * spec.supersampling - 1)
    seen = depth[np.arange(len(joints))[:, None], rays[..., 1], rays[..., 0]]
    return np.asarray(inside & (joints[..., 2] - seen < 1.5 * thickness + 0.01))


def _proportions(skeleton: Skeleton, rng: np.random.Generator) -> torch.Tensor:
    """Logarithms of the factors of bones, [J]: one for the body, one for each bone or pair."""
    joints = len(skeleton.parents)
    shape = rng.normal(0, 0.06) + rng.normal(0, 0.06, joints).clip(-0.15, 0.15)
    for left, right in skeleton.symmetric_pairs:
        shape[right] = shape[left]
    return torch.from_numpy(shape)


def _leg_factor(motion: Motion, shape: torch.Tensor) -> float:
    """How much longer the way is from the root to the lowest joint: so much longer are steps."""
    skeleton = motion.skeleton
    lowest = int(motion.joints()[..., 1].amin(0).argmin())
    before = after = 0.0
    while skeleton.parents[lowest] >= 0:
        length = float(torch.linalg.vector_norm(skeleton.offsets[lowest]))
        before, after = before + length, after + length * math.exp(shape[lowest])
        lowest = skeleton.parents[lowest]
    return after / before if before else 1.0


# --- Files --------------------------------------------------------------------------------------

_COLUMNS = "path,label,group,split,style"


def write_motion_clips(
    motions: Iterable[LabelledMotion],
    root: Path,
    *,
    spec: RenderSpec | None = None,
    seed: int = 0,
    clips_per_motion: int | None = None,
) -> int:
    """Render motions to a data set of clips with exact joints, which also serves classification.

    ``root/splits.csv`` lists the clips (layout `splits`: path, label, group, split; and the style);
    that of earlier clips is emptied first, and the new one is written last. Clips of one motion are
    one group. Beside ``<split>/<label>/<clip>.mp4`` lies ``<clip>.npz`` with the truth about T
    frames of J joints, in metres and camera coordinates unless said otherwise:

        joints3d [T, J, 3], joints2d [T, J, 2] in pixels, visible [T, J]
        rotations [T, J, 3, 3] local to the parents, translation [T, 3] of the root
        shape [J]: logarithms of lengths of bones relative to those of the motion's skeleton
        joint_names [J], parents [J], offsets [J, 3]: the skeleton that was drawn
        focal_px, centre_px [2], camera_rotation [3, 3], camera_translation [3]: from the world
        times_s [T]: from the start of the motion

    Args:
        motions: what to render; may be read on the way.
        root: made where it is missing; files of the same name are replaced.
        spec: size and length of clips; None: the defaults.
        seed: the same seed gives the same files, whatever other motions there are; at least 0.
        clips_per_motion: as `clips` of :func:`clip_starts_s`; each clip has its own body, camera
            and light. None: as many as fit without overlap.

    Returns:
        How many clips were written.

    Raises:
        ValueError: a value outside these ranges, no motion, two motions of one name, a
            `splits.csv` in the root that lists anything but rendered clips, or a body without hips
            by name where `spec.view_deg` asks for the front.
    """
    spec = spec or RenderSpec()
    table = root / "splits.csv"
    if table.exists() and table.read_text(errors="replace").split("\n")[0] != _COLUMNS:
        raise ValueError(
            f"{table} lists other things than rendered clips and would be replaced; choose another"
            " folder for the clips"
        )
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if clips_per_motion is not None and clips_per_motion < 1:
        raise ValueError(
            f"clips_per_motion must be at least 1, or None for all that fit, got {clips_per_motion}"
        )
    rows: list[str] = []
    names: set[str] = set()
    for item in motions:
        folder = f"{item.split}/{item.label}"
        if f"{folder}/{item.name}" in names:
            raise ValueError(f"two motions of {folder} are named {item.name}; rename one of them")
        names.add(f"{folder}/{item.name}")
        if spec.view_deg < 180:
            item.motion.skeleton.hips  # noqa: B018 - says here, before the list is emptied, if none
        (root / folder).mkdir(parents=True, exist_ok=True)
        if not rows:
            # What was begun is never listed: the clips may be of another recipe than the old ones.
            # Without any list, folders would be taken for classes.
            write_text(table, f"{_COLUMNS}\n")
        starts = clip_starts_s(item.motion, spec.duration_s, clips_per_motion)
        for number, start_s in enumerate(starts):
            name = f"{folder}/{item.name}_{number:02d}"
            clip_seed = seed * 2**32 + zlib.crc32(name.encode())
            clip = render_motion(item.motion, seed=clip_seed, spec=spec, start_s=start_s)
            write_video(root / f"{name}.mp4", iter(clip.pictures), spec.frame_rate_hz)
            _write_truth(root / f"{name}.npz", clip)
            rows.append(f"{name}.mp4,{item.label},{item.name},{item.split},{item.style}")
    if not rows:
        raise ValueError(f"no motion to render into {root}; give at least one")
    write_text(table, "\n".join([_COLUMNS, *rows, ""]))
    return len(rows)


def _write_truth(path: Path, clip: RenderedClip) -> None:
    skeleton, camera = clip.skeleton, clip.camera
    real = {
        "joints3d": clip.joints_camera,
        "joints2d": clip.joints_2d,
        "rotations": clip.rotations,
        "translation": clip.translation,
        "shape": clip.shape,
        "offsets": skeleton.offsets.numpy(),
        "focal_px": camera.focal_px,
        "centre_px": camera.centre_px,
        "camera_rotation": camera.rotation,
        "camera_translation": camera.translation,
    }
    arrays = {key: np.asarray(values, np.float32) for key, values in real.items()}
    arrays["visible"] = clip.visible
    arrays["times_s"] = clip.times_s
    arrays["parents"] = np.array(skeleton.parents)
    arrays["joint_names"] = np.array(skeleton.joint_names)
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
