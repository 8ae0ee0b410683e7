"""Procedural clips of two people interacting: richer motion to pre-train on.

Puppets of shaded capsules act out six interactions in front of random grounds, with random
proportions, clothes, timing, distance and direction. No recorded motion and no picture goes into
them. The class names are those of common interaction data sets, so that a network trained here
can be fine-tuned there.

Lengths are in body heights, angles in radians from hanging straight down, positive to the front.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

HIP, TORSO, LIMB = 0.48, 0.29, 0.245  # hip height, hip to neck, thigh and shin
UPPER_ARM, FOREARM, HEAD = 0.165, 0.19, 0.065


def _ramp(t: Array, *keys: tuple[float | int, float | int]) -> Array:
    """Smooth movement through (time, value) keys, constant before the first and after the last."""
    times, values = np.array(keys).T
    i = np.clip(np.searchsorted(times, t, side="right") - 1, 0, len(keys) - 2)
    s = np.clip((t - times[i]) / np.maximum(times[i + 1] - times[i], 1e-6), 0, 1)
    return np.asarray(values[i] + (values[i + 1] - values[i]) * s * s * (3 - 2 * s))


@dataclass
class Performance:
    """Joint angles of one puppet over the frames of a clip; each array is ``[frames]``."""

    x: Array  # hip position along the ground
    facing: int  # 1 looks to the right, -1 to the left
    lean: Array
    arms: list[tuple[Array, Array]]  # (upper arm, elbow) of both arms
    legs: list[tuple[Array, Array]]  # (thigh, knee) of both legs

    @classmethod
    def standing(cls, t: Array, x: Array, facing: int, rng: np.random.Generator) -> "Performance":
        """At ease, and walking where ``x`` moves."""
        speed = np.gradient(x, t)
        stride = rng.uniform(0.5, 0.7)
        phase = 2 * np.pi * (np.cumsum(np.abs(np.gradient(x))) / stride + rng.random())
        swing = np.clip(np.abs(speed) / 0.8, 0, 1) * rng.uniform(0.35, 0.6)
        spread = rng.uniform(0.02, 0.12)
        legs, arms = [], []
        for side in (0, np.pi):
            thigh = swing * np.sin(phase + side) + (spread if side else -spread)
            legs.append((thigh, -swing * (1 + np.cos(phase + side)) * 0.6))
            hang = rng.normal(0, 0.08)
            arms.append((hang - 0.8 * swing * np.sin(phase + side), np.full_like(t, 0.15)))
        sway = rng.normal(0.03, 0.03) + 0.02 * np.sin(2 * np.pi * (t + rng.random()))
        return cls(x, facing, sway, arms, legs)


Cast = list[Performance]
Action = Callable[[Array, np.random.Generator], Cast]


def _pair(t: Array, xa: Array, xb: Array, rng: np.random.Generator) -> Cast:
    return [Performance.standing(t, xa, 1, rng), Performance.standing(t, xb, -1, rng)]


def _mix(
    a: tuple[Array, Array], weight: Array, upper: Array | float | int, elbow: Array | float | int
) -> tuple[Array, Array]:
    return a[0] + weight * (upper - a[0]), a[1] + weight * (elbow - a[1])


def _handshake(t: Array, rng: np.random.Generator) -> Cast:
    start = rng.uniform(-0.1, 0.3)
    reach = start + rng.uniform(0.12, 0.3)
    end = reach + rng.uniform(0.3, 0.9)
    gap, near = rng.uniform(0.5, 1.1), rng.uniform(0.44, 0.58)
    step = _ramp(t, (start - 0.1, 0), (reach, 1)) * max(gap - near, 0)
    share = rng.uniform(0, 1)
    cast = _pair(t, -gap / 2 + share * step, gap / 2 - (1 - share) * step, rng)
    for p in cast:
        lift = _ramp(t, (start + rng.uniform(-0.05, 0.08), 0), (reach, 1), (end, 1), (end + 0.2, 0))
        shake = 0.12 * rng.random() * np.sin(2 * np.pi * rng.uniform(3, 6) * t)
        p.arms[0] = _mix(
            p.arms[0], lift, rng.uniform(0.5, 0.9) + shake, rng.uniform(0.35, 0.8) - shake
        )
        p.lean = p.lean + lift * rng.uniform(0.0, 0.15)
    return cast


def _hug(t: Array, rng: np.random.Generator) -> Cast:
    start = rng.uniform(-0.2, 0.2)
    reach = start + rng.uniform(0.25, 0.45)
    end = reach + rng.uniform(0.25, 0.8)
    gap, near = rng.uniform(0.6, 1.2), rng.uniform(0.1, 0.24)
    apart = _ramp(t, (start, gap), (reach, near), (end, near), (end + 0.3, rng.uniform(near, 0.6)))
    share = rng.uniform(0.2, 0.8)
    middle = rng.normal(0, 0.05)
    cast = _pair(t, middle - share * apart, middle + (1 - share) * apart, rng)
    for p in cast:
        lift = _ramp(t, (start, 0), (reach - 0.08, 1), (end, 1), (end + 0.25, 0))
        wrap = _ramp(t, (reach - 0.1, 0.1), (reach + 0.1, rng.uniform(0.4, 1.2)))
        for i in (0, 1):
            p.arms[i] = _mix(p.arms[i], lift, rng.uniform(0.9, 1.7), wrap)
        p.lean = p.lean + lift * rng.uniform(0.05, 0.25)
    return cast


def _kick(t: Array, rng: np.random.Generator) -> Cast:
    hit = rng.uniform(0.3, 0.7)
    lift = rng.uniform(0.12, 0.22)
    gap, near = rng.uniform(0.6, 1.3), rng.uniform(0.5, 0.7)
    come = _ramp(
        t, (hit - 0.45, -gap), (hit - 0.05, -near), (hit + 0.25, -near - rng.uniform(-0.2, 0.2))
    )
    flee = _ramp(t, (hit - rng.uniform(-0.05, 0.1), 0.0), (hit + 0.35, rng.uniform(0.05, 0.5)))
    a, b = _pair(t, come + near / 2, flee + near / 2, rng)
    up = _ramp(t, (hit - lift, 0), (hit, 1), (hit + 0.05, 1), (hit + lift + 0.05, 0))
    knee = _ramp(
        t,
        (hit - lift, -0.3),
        (hit - 0.06, -rng.uniform(0.6, 1.3)),
        (hit, -0.05),
        (hit + lift, -0.5),
    )
    a.legs[0] = _mix(a.legs[0], up, rng.uniform(1.1, 1.75), knee)
    a.legs[1] = _mix(a.legs[1], up, -rng.uniform(0.0, 0.2), -0.1)
    a.lean = a.lean - up * rng.uniform(0.05, 0.4)
    for i in (0, 1):
        a.arms[i] = _mix(a.arms[i], up * 0.8, rng.uniform(-0.7, 0.7), 0.4)
    _recoil(b, t, hit, rng)
    return [a, b]


def _punch(t: Array, rng: np.random.Generator) -> Cast:
    hit = rng.uniform(0.3, 0.7)
    quick = rng.uniform(0.08, 0.15)
    gap, near = rng.uniform(0.5, 1.2), rng.uniform(0.38, 0.55)
    come = _ramp(t, (hit - 0.45, -gap), (hit, -near), (hit + 0.3, -near - rng.uniform(-0.2, 0.2)))
    flee = _ramp(t, (hit, 0.0), (hit + 0.35, rng.uniform(0.0, 0.35)))
    a, b = _pair(t, come + near / 2, flee + near / 2, rng)
    ready = _ramp(t, (hit - quick - 0.2, 0), (hit - quick, 1), (hit + 0.1, 1), (hit + 0.35, 0))
    out = _ramp(t, (hit - quick, 0), (hit, 1), (hit + 0.05, 1), (hit + 0.05 + quick, 0))
    back, height = rng.uniform(-0.9, 0.0), rng.uniform(1.3, 1.9)
    a.arms[0] = _mix(
        a.arms[0], ready, back + out * (height - back), (1 - out) * rng.uniform(1.2, 2.0)
    )
    a.arms[1] = _mix(a.arms[1], ready * rng.random(), 0.2, 1.2)
    _lunge(a, ready, rng)
    _recoil(b, t, hit, rng)
    return [a, b]


def _push(t: Array, rng: np.random.Generator) -> Cast:
    hit = rng.uniform(0.3, 0.65)
    gap, near = rng.uniform(0.6, 1.2), rng.uniform(0.38, 0.52)
    go = rng.uniform(0.0, 0.3)
    come = _ramp(t, (hit - 0.45, -gap), (hit, -near), (hit + 0.3, -near + go))
    flee = _ramp(t, (hit - 0.02, 0.0), (hit + rng.uniform(0.25, 0.45), go + rng.uniform(0.25, 0.8)))
    a, b = _pair(t, come + near / 2, flee + near / 2, rng)
    ready = _ramp(t, (hit - 0.3, 0), (hit - 0.12, 1), (hit + 0.3, 1), (hit + 0.55, 0))
    out = _ramp(t, (hit - 0.12, 0), (hit + 0.05, 1))
    height = rng.uniform(1.2, 1.6)
    for i in (0, 1):
        upper = 0.3 + out * (height - 0.3) + rng.normal(0, 0.08)
        a.arms[i] = _mix(a.arms[i], ready, upper, (1 - out) * rng.uniform(1.0, 1.8))
    _lunge(a, ready, rng)
    _recoil(b, t, hit, rng)
    return [a, b]


def _point(t: Array, rng: np.random.Generator) -> Cast:
    start = rng.uniform(-0.15, 0.35)
    top = start + rng.uniform(0.1, 0.3)
    end = top + rng.uniform(0.2, 0.8)
    a = Performance.standing(t, np.full_like(t, rng.normal(0, 0.12)), 1, rng)
    lift = _ramp(t, (start, 0), (top, 1), (end, 1), (end + 0.25, 0))
    bend = _ramp(t, (start, 0.6 * rng.random()), (top, 0.05))
    a.arms[0] = _mix(a.arms[0], lift, rng.uniform(1.2, 1.9), bend)
    a.lean = a.lean + lift * rng.normal(0, 0.06)
    return [a]


def _lunge(p: Performance, weight: Array, rng: np.random.Generator) -> None:
    wide = rng.uniform(0.15, 0.6)
    p.legs = [
        _mix(p.legs[0], weight, wide, -0.3 * wide),
        _mix(p.legs[1], weight, -wide, -0.2 * wide),
    ]
    p.lean = p.lean + weight * rng.uniform(0.05, 0.4)


def _recoil(p: Performance, t: Array, hit: float, rng: np.random.Generator) -> None:
    jolt = _ramp(t, (hit - 0.03, 0), (hit + 0.08, 1), (hit + 0.4, 0))
    p.lean = p.lean - jolt * rng.uniform(-0.1, 0.45)
    for i in (0, 1):
        p.arms[i] = _mix(
            p.arms[i], jolt * rng.random(), rng.uniform(0.2, 1.2), rng.uniform(0.2, 1.4)
        )


ACTIONS: dict[str, Action] = {
    "handshake": _handshake,
    "hug": _hug,
    "kick": _kick,
    "point": _point,
    "punch": _punch,
    "push": _push,
}


class _Canvas:
    """An image in body coordinates: x to the right, y up, origin on the ground."""

    def __init__(self, background: Array, scale: float, origin: tuple[float, float]) -> None:
        self.image = background.copy()  # [H, W, 3] in 0..1
        self.scale, self.origin = scale, origin

    def capsule(
        self, a: Array, b: Array, radius: float, colour: Array, stripes: float = 0.0
    ) -> None:
        """A thick line from ``a`` to ``b``, darker towards its rim and across its stripes."""
        h, w = self.image.shape[:2]
        (ax, ay), (bx, by) = (
            (self.origin[0] + self.scale * p[0], self.origin[1] - self.scale * p[1]) for p in (a, b)
        )
        r = radius * self.scale
        x0, x1 = int(max(min(ax, bx) - r - 1, 0)), int(min(max(ax, bx) + r + 2, w))
        y0, y1 = int(max(min(ay, by) - r - 1, 0)), int(min(max(ay, by) + r + 2, h))
        if x0 >= x1 or y0 >= y1:
            return
        px, py = np.arange(x0, x1) - ax, (np.arange(y0, y1) - ay)[:, None]
        dx, dy = bx - ax, by - ay
        along = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        distance = np.hypot(px - along * dx, py - along * dy)
        cover = np.clip(r + 0.5 - distance, 0, 1)[..., None]
        shade = 1 - 0.25 * (distance / max(r, 1e-9)).clip(0, 1) ** 2
        if stripes:
            shade = shade * np.where(np.sin(along * stripes) > 0, 1.0, 0.35)
        patch = self.image[y0:y1, x0:x1]
        patch += cover * (shade[..., None] * colour - patch)


@dataclass(frozen=True)
class _Looks:
    """Proportions and clothes of one puppet."""

    height: float
    girth: float
    shirt: Array
    trousers: Array
    skin: Array
    hair: Array
    sleeve: Array
    stripes: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> "_Looks":
        shirt = rng.random(3) * rng.uniform(0.3, 1)
        skin = np.array([0.85, 0.62, 0.48]) * rng.uniform(0.4, 1.1)
        return cls(
            height=rng.uniform(0.9, 1.08),
            girth=rng.uniform(0.8, 1.3),
            shirt=shirt,
            trousers=rng.random(3) * 0.35 + rng.uniform(0, 0.3),
            skin=skin.clip(0, 1),
            hair=rng.random(3) * 0.25,
            sleeve=skin.clip(0, 1) if rng.random() < 0.4 else shirt,
            stripes=rng.uniform(15, 40) if rng.random() < 0.25 else 0.0,
        )


def _draw(canvas: _Canvas, p: Performance, looks: _Looks, frame: int) -> None:
    s, g = looks.height, looks.girth

    def end(start: Array, angle: float, length: float) -> Array:
        return start + s * length * np.array([p.facing * np.sin(angle), -np.cos(angle)])

    thighs = [(leg[0][frame], leg[1][frame]) for leg in p.legs]
    # the standing leg reaches the ground
    reach = max(LIMB * (np.cos(a) + np.cos(a + k)) for a, k in thighs)
    hip = np.array([p.x[frame], s * reach])
    neck = end(hip, np.pi - p.lean[frame], TORSO)
    shoulder = hip + 0.93 * (neck - hip)

    def arm(i: int) -> None:
        upper, elbow = p.arms[i][0][frame], p.arms[i][1][frame]
        joint = end(shoulder, upper, UPPER_ARM)
        hand = end(joint, upper + elbow, FOREARM)
        canvas.capsule(shoulder, joint, 0.030 * g, looks.shirt * (1 - 0.15 * i))
        canvas.capsule(joint, hand, 0.025 * g, looks.sleeve * (1 - 0.15 * i))
        canvas.capsule(hand, hand, 0.03, looks.skin)

    def leg(i: int) -> None:
        angle, bend = thighs[i]
        knee = end(hip, angle, LIMB)
        ankle = end(knee, angle + bend, LIMB - 0.02)
        dim = 1 - 0.2 * i
        canvas.capsule(hip, knee, 0.045 * g, looks.trousers * dim)
        canvas.capsule(knee, ankle, 0.036 * g, looks.trousers * dim)
        canvas.capsule(ankle, ankle + np.array([0.07 * p.facing, -0.01]), 0.022, looks.hair * dim)

    arm(1)
    leg(1)
    leg(0)
    canvas.capsule(hip, shoulder, 0.075 * g, looks.shirt, looks.stripes)
    head = end(neck, np.pi - p.lean[frame], 0.075)
    canvas.capsule(head, head, HEAD * 1.1, looks.hair)
    canvas.capsule(
        head + np.array([0.02 * p.facing, -0.02]),
        head + np.array([0.03 * p.facing, -0.03]),
        HEAD * 0.75,
        looks.skin,
    )
    arm(0)


def _ground(rng: np.random.Generator, size: int) -> Array:
    """A random ground: colour, noise of several grain sizes, at times a band at the top."""
    base = rng.uniform(0.25, 0.6) * (np.ones(3) + rng.normal(0, 0.12, 3))
    image = np.broadcast_to(base, (size, size, 3)).copy()
    for cells in (3, 8, 20, size // 2):
        coarse = rng.normal(0, rng.uniform(0.01, 0.045), (cells, cells, 1)) * rng.uniform(
            0.6, 1.2, 3
        )
        index = np.arange(size) * cells // size
        image += coarse[index][:, index]
    if rng.random() < 0.4:
        image[: int(size * rng.uniform(0.05, 0.3))] *= rng.uniform(0.4, 1.3, 3)
    return image.clip(0, 1)


def render_interaction(
    action: str, seed: int, *, frames: int = 24, size: int = 80
) -> Iterator[Image]:
    """Frames of one clip, about two seconds of one action.

    Args:
        action: a key of :data:`ACTIONS`.
        seed: everything random follows from it and the action.
        frames: how many, spread over the action.
        size: height and width in pixels.

    Returns:
        Iterator over uint8 RGB ``[size, size, 3]``.
    """
    rng = np.random.default_rng([seed, sorted(ACTIONS).index(action)])
    t = np.linspace(0, 1, frames)
    cast = ACTIONS[action](t, rng)
    looks = [_Looks.random(rng) for _ in cast]
    scale = size * rng.uniform(0.62, 0.85)
    centre = np.mean([p.x.mean() for p in cast]) + rng.normal(0, 0.06)
    mirror = rng.random() < 0.5
    origin = (size / 2 - scale * centre, size * rng.uniform(0.85, 0.97))
    background = _ground(rng, size)
    far = [
        (
            Performance.standing(t, rng.uniform(-0.9, 0.9) + rng.normal(0, 0.2) * t, 1, rng),
            _Looks.random(rng),
        )
        for _ in range(rng.integers(0, 3) if rng.random() < 0.3 else 0)
    ]
    grain = rng.uniform(0, 0.02)
    front = rng.permutation(len(cast))
    for frame in range(frames):
        canvas = _Canvas(background, scale, (origin[0], origin[1] - scale * 0.72))
        for performance, look in far:
            _draw(canvas, performance, look, frame)
        canvas.origin = origin
        for i in front:
            _draw(canvas, cast[i], looks[i], frame)
        image = canvas.image[:, ::-1] if mirror else canvas.image
        noisy = image + rng.normal(0, grain, image.shape)
        yield (noisy.clip(0, 1) * 255).astype(np.uint8)
