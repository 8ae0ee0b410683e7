"""One clip from one number: who, what and where, the light and the camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from motion import RATE_HZ, Capture, retarget, skin
from render import Camera, Mesh, Panorama, Renderer, light_of
from scipy.spatial.transform import Rotation
from things import box, moved, surface, thing, wall
from wear import Wear

from body import Person, Wardrobe

HEIGHT = 128
WIDTHS = (160, 192, 224)


@dataclass(frozen=True)
class Clip:
    """What is written of a clip; K joints, P people, T frames."""

    pictures: np.ndarray  # [T, H, W, 3] uint8
    masks: np.ndarray  # [T, H, W] uint8, 0 or the number of a person from 1
    joints_2d: np.ndarray  # [T, P, K, 2] px
    joints_3d: np.ndarray  # [T, P, K, 3] m, axes of the camera: x right, y down, z forward
    seen: np.ndarray  # [T, P, K] whether the joint's pixel shows that person
    boxes: np.ndarray  # [T, P, 4] left, top, right, bottom of what shows, -1 where nothing does
    rate_hz: float
    about: dict[str, object]


def _smooth(
    rng: np.random.Generator,
    frames: int,
    rate_hz: float,
    size: float,
    wide: int,
    hz: tuple[float, float] = (0.4, 4.0),
) -> np.ndarray:
    """A shaky path of ``wide`` numbers."""
    t = np.arange(frames)[:, None] / rate_hz
    f = np.exp(rng.uniform(np.log(hz[0]), np.log(hz[1]), (4, wide)))
    a = rng.normal(0, size / 2, (4, wide))
    return sum(a[k] * np.sin(2 * np.pi * (f[k] * t + rng.random(wide))) for k in range(4))


def _posed(
    rng: np.random.Generator,
    wardrobe: Wardrobe,
    person: Person,
    captures: list[Capture],
    frames: int,
    rate_hz: float,
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, bool]:
    """Vertices and normals of each frame, joints [T, K, 3], and whether the person sits."""
    capture = captures[rng.integers(len(captures))]
    speed = rng.uniform(0.6, 1.3)
    needed = frames * RATE_HZ / rate_hz * speed
    start = rng.uniform(0, max(capture.frames - needed - 2, 1))
    times = np.minimum(start + np.arange(frames) * RATE_HZ / rate_hz * speed, capture.frames - 2)
    sits = bool(rng.random() < 0.15)
    rotations, places = retarget(
        capture,
        times,
        wardrobe.bones,
        wardrobe.parents,
        person.heads,
        rng,
        sits=sits,
        arms=bool(rng.random() < (0.7 if sits else 0.35)),
    )
    poses, joints = [], []
    for rotation, place in zip(rotations, places, strict=True):
        poses.append(
            skin(person.vertices, person.normals, person.weights, person.heads, rotation, place)
        )
        joints.append(wardrobe.joints @ poses[-1][0][: wardrobe.count])
    return poses, np.stack(joints), sits


def make_clip(
    seed: int,
    wardrobe: Wardrobe,
    captures: list[Capture],
    panoramas: list[Panorama],
    renderers: dict[int, Renderer],
    frames: int,
) -> Clip:
    """The clip of a seed; the same seed and inputs give the same clip.

    Args:
        seed: of all that is random.
        wardrobe, captures, panoramas: what to choose from.
        renderers: by width of the picture, which draw SUPER times as large.
        frames: T.
    """
    rng = np.random.default_rng(seed)
    u = rng.uniform
    rate_hz = float(rng.choice([10, 12.5, 15, 20, 25]))
    width, height = int(rng.choice(WIDTHS)), HEIGHT
    people = int(rng.choice([0, 1, 2, 3], p=[0.28, 0.42, 0.18, 0.12]))
    meshes: list[Mesh] = []
    moves: list[list[tuple[np.ndarray, np.ndarray]]] = []
    all_joints = []
    spots: list[np.ndarray] = []
    seats: list[np.ndarray] = []
    for number in range(people):
        person = wardrobe.dress(rng)
        poses, joints, sits = _posed(rng, wardrobe, person, captures, frames, rate_hz)
        for _ in range(20):
            spot = np.array([*rng.normal(0, 0.9, 2), 0])
            if all(np.linalg.norm(spot - s) > 0.5 for s in spots):
                break
        spots.append(spot)
        if sits:
            seats.append(spot)
        turn = Rotation.from_euler("z", u(0, 2 * np.pi)).as_matrix()
        moves.append([(v @ turn.T + spot, n @ turn.T) for v, n in poses])
        all_joints.append(joints @ turn.T + spot)
        meshes.append(Mesh(person.vertices, person.faces, person.paint, number + 1))
    joints = (
        np.stack(all_joints, 1) if people else np.zeros((frames, 0, len(wardrobe.joint_names), 3))
    )

    # the camera
    if people:
        target_person = rng.integers(people)
        body = joints[:, target_person]
        name = wardrobe.joint_names.index
        shot = rng.choice(["face", "bust", "waist", "full", "far"], p=[0.1, 0.2, 0.2, 0.32, 0.18])
        head = (body[:, name("left_ear")] + body[:, name("right_ear")]) / 2
        hips = (body[:, name("left_hip")] + body[:, name("right_hip")]) / 2
        aim, span = {
            "face": (head, 0.32),
            "bust": (0.7 * head + 0.3 * hips, 0.75),
            "waist": (0.45 * head + 0.55 * hips, 1.2),
            "full": (body.mean(1), 1.9),
            "far": (body.mean(1), 1.9),
        }[shot]
        share = {
            "face": u(0.5, 1.3),
            "bust": u(0.7, 1.3),
            "waist": u(0.7, 1.2),
            "full": u(0.5, 1.1),
            "far": u(0.14, 0.5),
        }[shot]
    else:
        shot = "none"
        aim, span, share = (
            np.tile([*rng.normal(0, 0.8, 2), u(0.2, 1.5)], (frames, 1)),
            1.5,
            u(0.15, 1.2),
        )
    focal = 1 / np.tan(np.radians(np.exp(u(np.log(24), np.log(95)))) / 2)
    distance = float(np.clip(span * focal / (2 * share), 0.45, 40))
    elevation = np.radians(
        rng.choice([u(-8, 15), u(10, 35), u(35, 75), u(-35, -5)], p=[0.55, 0.27, 0.13, 0.05])
    )
    if shot in ("face", "bust"):
        elevation = np.clip(elevation, -0.5, 0.6)
    azimuth = u(0, 2 * np.pi)
    follow = rng.random() < 0.35
    style = rng.choice(
        ["still", "hand", "pan", "orbit", "dolly", "shake"], p=[0.4, 0.25, 0.12, 0.08, 0.08, 0.07]
    )
    t = (np.arange(frames) / max(frames - 1, 1) - 0.5)[:, None]
    path = aim if follow else np.repeat(aim[frames // 2 : frames // 2 + 1], frames, 0)
    azimuths = azimuth + (u(-0.5, 0.5) * t[:, 0] if style == "orbit" else 0 * t[:, 0])
    far = distance * np.exp((u(-0.5, 0.5) if style == "dolly" else 0) * t[:, 0])
    away = np.stack(
        [
            np.cos(azimuths) * np.cos(elevation),
            np.sin(azimuths) * np.cos(elevation),
            np.full(frames, np.sin(elevation)),
        ],
        1,
    )
    eyes = path + away * far[:, None]
    eyes[:, 2] = np.maximum(eyes[:, 2], 0.08)
    shake = {"hand": 0.012, "shake": 0.05}.get(style, 0.0)
    eyes = eyes + _smooth(rng, frames, rate_hz, shake * min(distance, 2), 3)
    look = path + (
        np.array([u(-1, 1), u(-1, 1), u(-0.4, 0.4)]) * t * span / share if style == "pan" else 0
    )
    look = look + _smooth(rng, frames, rate_hz, shake * distance, 3)
    roll = rng.normal(0, 0.03) if rng.random() < 0.85 else u(-np.pi / 2, np.pi / 2)
    rolls = roll + _smooth(rng, frames, rate_hz, shake, 1)[:, 0]
    centre = (u(-0.6, 0.6) * width / height, u(-0.35, 0.35)) if rng.random() < 0.7 else (0.0, 0.0)
    cameras = []
    for eye, at, tilt in zip(eyes, look, rolls, strict=True):
        back = (eye - at) / max(np.linalg.norm(eye - at), 1e-6)
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= max(np.linalg.norm(right), 1e-6)
        up = np.cross(back, right)
        c, s = np.cos(tilt), np.sin(tilt)
        cameras.append(
            Camera(eye, np.stack([c * right + s * up, c * up - s * right, back]), focal, centre)
        )

    # room or panorama, things
    panorama = panoramas[rng.integers(len(panoramas))]
    place = rng.choice(["panorama", "floor", "room", "flat"], p=[0.25, 0.3, 0.33, 0.12])
    still: list[tuple[tuple, np.ndarray, bool]] = []
    if place in ("floor", "room"):
        size = np.array([u(3, 14), u(3, 14), u(2.3, 5)])
        low = box(np.array([60.0, 60.0, 0.02]) if place == "floor" else np.array([*size[:2], 0.02]))
        still.append((moved(low, (0, 0, -0.02)), wall(rng, 24), False))
        if place == "room":
            piece = box(size)
            walls = wall(rng, 24)
            walls[piece[0][:, 2] * 0 + piece[1][:, 2] > 0.5] = wall(rng, 1)[0]  # ceiling
            middle = (*rng.normal(0, 0.8, 2), size[2] / 2)
            still.append(((piece[0] + np.array(middle), -piece[1], piece[2][:, ::-1]), walls, True))
            for _ in range(rng.integers(0, 9)):  # pictures, doors and windows on the walls
                axis = rng.integers(0, 2)
                sign = rng.choice([-1, 1])
                flat = np.array([u(0.3, 1.8), u(0.3, 1.8), u(0.3, 2.1)])
                flat[axis] = 0.04
                where = np.array([u(-0.5, 0.5), u(-0.5, 0.5), 0]) * size
                where[axis] = sign * (size[axis] / 2 - 0.03)
                where[2] = u(0.4, size[2]) - size[2] / 2
                paint = surface(rng, 24)
                if rng.random() < 0.3:
                    paint[:, :6] *= u(1, 4)  # lit
                still.append((moved(box(flat), tuple(where + middle)), paint, False))
    crowd = int(rng.integers(0, 10)) if rng.random() < 0.7 else int(rng.integers(10, 30))
    moving = []
    for _ in range(crowd + (1 if not people else 0) * int(rng.integers(1, 4))):
        piece = thing(rng)
        r, a = abs(rng.normal(0, 2.2)), u(0, 2 * np.pi)
        turn = Rotation.from_euler("z", u(0, 6.28)).as_matrix()
        if rng.random() < 0.15:
            turn = Rotation.random(random_state=rng.integers(2**31)).as_matrix()
        where = np.array(
            [
                r * np.cos(a),
                r * np.sin(a),
                0 if place != "flat" and rng.random() < 0.75 else u(0, 2),
            ]
        )
        line = where - eyes[0]
        if (
            people
            and np.linalg.norm(where[:2] - spots[target_person][:2]) < 0.45
            and rng.random() < 0.7
        ):
            continue
        if np.linalg.norm(line) < 0.6 + np.abs(piece[0]).max():
            continue
        piece = (piece[0] @ turn.T, piece[1] @ turn.T, piece[2])
        if rng.random() < (0.7 if not people else 0.25):
            moving.append((piece, where))
        else:
            still.append((moved(piece, tuple(where)), surface(rng, len(piece[0])), False))
    for spot in seats:
        if rng.random() < 0.7:
            piece = box(np.array([u(0.4, 0.9), u(0.4, 0.9), u(0.35, 0.45)]))
            still.append((moved(piece, (spot[0], spot[1], 0.2)), surface(rng, 24), False))
        if rng.random() < 0.5:
            piece = moved(
                box(np.array([u(0.6, 1.6), u(0.5, 1), 0.04])),
                (*(spot[:2] + u(-0.7, 0.7, 2)), u(0.6, 0.8)),
            )
            still.append((piece, surface(rng, 24), False))
    if people and rng.random() < 0.25:  # something in front of the person
        back = away[0]
        near = path[0] + back * far[0] * u(0.25, 0.75)
        reach = span / share * u(0.1, 0.6)
        bar = rng.random() < 0.5
        piece = box(
            reach
            * (
                np.array([0.15, 0.15, 6])
                if bar
                else np.array([u(0.4, 1.2), u(0.4, 1.2), u(0.3, 1)])
            )
        )
        drop = np.array([*rng.normal(0, 0.35, 2) * reach, u(-1.2, 0.1) * reach])
        still.append((moved(piece, tuple(near + drop)), surface(rng, 24), False))
    for piece, paint, inside in still:
        meshes.append(Mesh(piece[0], piece[2], paint, 0, inside))
        moves.append([(piece[0], piece[1])])
    for piece, where in moving:
        speed = rng.normal(0, 0.8, 3) * [1, 1, 0.25]
        spin = rng.normal(0, 1.5) * (rng.random() < 0.5)
        steps = []
        for k in range(frames):
            s = (k - frames / 2) / rate_hz
            turn = Rotation.from_euler("z", spin * s).as_matrix()
            steps.append((piece[0] @ turn.T + where + speed * s, piece[1] @ turn.T))
        meshes.append(Mesh(piece[0], piece[2], surface(rng, len(piece[0])), 0))
        moves.append(steps)

    # the light
    angle = u(0, 2 * np.pi)
    to_light = Rotation.from_euler("z", angle).as_matrix()
    light_source = panorama
    if place == "flat" or (place == "room" and rng.random() < 0.6):
        light_source = _backdrop(rng)
    sun_to = to_light.T @ light_source.sun_to
    sun = light_source.sun * u(0.2, 1.5)
    if rng.random() < 0.4:
        sun_to = np.array([*rng.normal(0, 1, 2), abs(rng.normal(0.6, 0.6))])
        sun = (
            u(0.1, 1.2)
            * np.clip(rng.normal(1, 0.15, 3), 0.3, 2)
            * light_source.harmonics[0].mean()
            * 3
        )
    sun_to = sun_to / max(np.linalg.norm(sun_to), 1e-6)
    blobs = np.zeros((8, 4))
    light = {
        "harmonics": light_source.harmonics * (u(0.5, 1.2) if rng.random() < 0.8 else u(0.15, 0.5)),
        "to_light": to_light,
        "sun_to": sun_to,
        "sun": sun,
        "detail": u(0, 0.7),
        "seed": u(0, 50),
        "gain": 1.0,
        "fog": light_source.harmonics[0] * 0.28 * u(0.5, 1.5),
        "fog_density": u(0, 0.08) if rng.random() < 0.25 else 0.0,
        "blobs": blobs,
        "shadow": u(0.2, 0.8),
    }
    renderer = renderers[width]
    renderer.load(meshes, light_source if place == "flat" else panorama)
    wear = Wear(rng, width, height)
    pictures, masks = [], []
    exposure = None
    foot = [i for i, n in enumerate(wardrobe.joint_names) if "heel" in n or "toe" in n]
    for k in range(frames):
        for number, steps in enumerate(moves):
            if k < len(steps):
                renderer.place(number, *steps[k])
        for number in range(people):
            at = joints[k, number][foot]
            blobs[2 * number] = [*at[: len(at) // 2].mean(0)[:2], 0, 0.05]
            blobs[2 * number + 1] = [*at.mean(0)[:2], 0, 0.25]
        for number, (_, where) in enumerate(moving[: max(0, 8 - 2 * people)]):
            blobs[2 * people + number] = [where[0], where[1], 0, 0.1]
        colour, label = renderer.draw(cameras[k], light)
        if exposure is None:
            bright = np.percentile(colour.mean(-1), 80)
            on = label > 0
            if on.any() and rng.random() < 0.6:
                bright = 0.5 * bright + 0.8 * colour[on].mean()
            exposure = u(0.35, 1.1) / max(bright, 1e-3)
        picture, mask = wear(colour * exposure, label, k)
        pictures.append(picture)
        masks.append(mask)
    masks_ = np.stack(masks)
    flat, seen, boxes, inside = [], [], [], []
    for k in range(frames):
        pixels, depth = cameras[k].project(joints[k], width, height)
        pixels = wear.bent(pixels)
        x = np.clip(pixels[..., 0].astype(int), 0, width - 1)
        y = np.clip(pixels[..., 1].astype(int), 0, height - 1)
        within = (
            (pixels >= 0).all(-1)
            & (pixels[..., 0] < width)
            & (pixels[..., 1] < height)
            & (depth > 0)
        )
        seen.append(within & (masks_[k][y, x] == np.arange(1, people + 1)[:, None]))
        flat.append(pixels)
        inside.append(((joints[k] - cameras[k].eye) @ cameras[k].rotation.T) * [1, -1, -1])
        row = np.full((people, 4), -1)
        for number in range(people):
            ys, xs = np.nonzero(masks_[k] == number + 1)
            if len(ys):
                row[number] = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        boxes.append(row)
    return Clip(
        np.stack(pictures),
        masks_,
        np.stack(flat).astype(np.float32),
        np.stack(inside).astype(np.float32),
        np.stack(seen),
        np.stack(boxes),
        rate_hz,
        {
            "seed": seed,
            "people": people,
            "shot": str(shot),
            "place": str(place),
            "camera": str(style),
            "distorted": wear.bend != 0.0,
        },
    )


def _backdrop(rng: np.random.Generator) -> Panorama:
    """A panorama that is no place: a gradient, clouds of colour or noise."""
    height, width = 64, 128
    field = np.zeros((height, width, 3), np.float32)
    for size in (2, 4, 8, 16):
        grid = rng.random((size, 2 * size, 3)).astype(np.float32)
        if rng.random() < 0.85:
            grid = grid.mean(-1, keepdims=True).repeat(3, -1)
        field += (
            cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
            * rng.uniform(0, 1)
            / size**0.5
        )
    field = rng.uniform(0.1, 1.0) * np.clip(rng.normal(1, 0.12, 3), 0.5, 1.5) + (
        field - field.mean()
    ) * rng.uniform(0, 1.5)
    up = np.linspace(1, -1, height)[:, None, None]
    return light_of(np.clip(field * (1 + rng.uniform(-0.3, 0.7) * up), 0.01, 4).astype(np.float32))
