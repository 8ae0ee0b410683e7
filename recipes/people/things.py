"""Things that are no person: furniture, balls, lumps, shelves, cars, plants, beasts; and walls."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from body import fabric

Piece = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Vertices [N, 3], normals [N, 3] and faces [F, 3]."""


def box(size: np.ndarray) -> Piece:
    vertices, normals, faces = [], [], []
    for axis in range(3):
        for sign in (-1, 1):
            a, b = [k for k in range(3) if k != axis]
            first = len(vertices)
            for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                p = np.zeros(3)
                p[[axis, a, b]] = sign, u, v
                vertices.append(p * size / 2)
                n = np.zeros(3)
                n[axis] = sign
                normals.append(n)
            quad = [[0, 1, 2], [0, 2, 3]] if (sign > 0) != (axis == 1) else [[0, 2, 1], [0, 3, 2]]
            faces += [[first + i for i in q] for q in quad]
    return np.array(vertices), np.array(normals), np.array(faces)


def revolved(profile: np.ndarray, sides: int = 20) -> Piece:
    """A body of revolution about z from its profile [M, 2] of radius and height."""
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    m = len(profile)
    slope = np.gradient(profile, axis=0)
    normal = np.stack([slope[:, 1], -slope[:, 0]], 1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    vertices = np.stack(
        [
            profile[:, :1] * np.cos(angle),
            profile[:, :1] * np.sin(angle),
            profile[:, 1:].repeat(sides, 1),
        ],
        -1,
    ).reshape(-1, 3)
    normals = np.stack(
        [
            normal[:, :1] * np.cos(angle),
            normal[:, :1] * np.sin(angle),
            normal[:, 1:].repeat(sides, 1),
        ],
        -1,
    ).reshape(-1, 3)
    i, k = np.meshgrid(np.arange(m - 1), np.arange(sides), indexing="ij")
    a, b = i * sides + k, i * sides + (k + 1) % sides
    faces = np.concatenate(
        [np.stack([a, b, b + sides], -1), np.stack([a, b + sides, a + sides], -1)]
    )
    return vertices, normals, faces.reshape(-1, 3)


def joined(pieces: list[Piece]) -> Piece:
    offsets = np.cumsum([0] + [len(p[0]) for p in pieces])
    return (
        np.concatenate([p[0] for p in pieces]),
        np.concatenate([p[1] for p in pieces]),
        np.concatenate([p[2] + o for p, o in zip(pieces, offsets, strict=False)]),
    )


def moved(piece: Piece, where: tuple[float, float, float]) -> Piece:
    return piece[0] + np.array(where), piece[1], piece[2]


def thing(rng: np.random.Generator) -> Piece:
    """Something that is no person, standing on z = 0: vertices, normals, faces."""
    kind = rng.choice([0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 8, 9, 10])
    u = rng.uniform
    if kind == 0:
        size = np.array([u(0.1, 1), u(0.1, 1), u(0.1, 1.8)])
        return moved(box(size), (0, 0, size[2] / 2))
    if kind in (1, 2):  # ball, or a lump
        r = u(0.05, 0.6)
        t = np.linspace(0, np.pi, 14)
        piece = revolved(np.stack([np.sin(t), -np.cos(t)], 1))
        vertices = piece[0] * (r * (u(0.6, 1.6, 3) if kind == 2 else 1))
        if kind == 2:
            wave = rng.normal(0, 2.2, (3, 4))
            vertices *= 1 + 0.35 * np.sin(piece[0] @ wave + u(0, 6, 4)).mean(1, keepdims=True)
        return vertices - [0, 0, vertices[:, 2].min()], piece[1], piece[2]
    if kind in (3, 4):  # pole, bin, vase, bollard, bottle, lamp
        h = u(0.2, 2.2)
        t = np.linspace(0, 1, 9)
        r = u(0.03, 0.35) * np.interp(t, np.linspace(0, 1, 4), u(0.35, 1.2, 4))
        if kind == 3:
            r[:] = r[0]
        return revolved(np.stack([np.r_[0, r, 0], np.r_[0, t, 1] * h], 1))
    if kind == 5:  # table
        w, d, h, top = u(0.5, 1.8), u(0.5, 0.9), u(0.45, 1.1), u(0.02, 0.08)
        pieces = [moved(box(np.array([w, d, top])), (0, 0, h))]
        for x in (-1, 1):
            for y in (-1, 1):
                pieces.append(
                    moved(box(np.array([0.05, 0.05, h])), (x * w * 0.45, y * d * 0.45, h / 2))
                )
        return joined(pieces)
    if kind == 6:  # chair
        w, h, back = u(0.38, 0.55), u(0.4, 0.5), u(0.3, 0.6)
        pieces = [
            moved(box(np.array([w, w, 0.05])), (0, 0, h)),
            moved(box(np.array([w, 0.05, back])), (0, w / 2, h + back / 2)),
        ]
        for x in (-1, 1):
            for y in (-1, 1):
                pieces.append(
                    moved(box(np.array([0.04, 0.04, h])), (x * w * 0.45, y * w * 0.45, h / 2))
                )
        return joined(pieces)
    if kind == 7:  # shelf with things
        w, h, boards = u(0.8, 2.5), u(1.2, 2.4), rng.integers(2, 6)
        pieces = [
            moved(box(np.array([w, 0.35, 0.03])), (0, 0, h * k / boards)) for k in range(boards + 1)
        ]
        pieces += [moved(box(np.array([0.04, 0.35, h])), (x * w / 2, 0, h / 2)) for x in (-1, 1)]
        for _ in range(rng.integers(4, 25)):
            s = np.array([u(0.04, 0.3), u(0.1, 0.3), u(0.08, 0.8 * h / boards)])
            k = rng.integers(0, boards)
            pieces.append(moved(box(s), (u(-w / 2, w / 2), 0, h * k / boards + s[2] / 2)))
        return joined(pieces)
    if kind == 8:  # car or cupboard on wheels
        length, wide = u(2.5, 4.5), u(1.4, 1.9)
        low = box(np.array([length, wide, 0.6]))
        cabin = box(np.array([length * 0.5, wide * 0.9, 0.55]))
        cabin[0][cabin[0][:, 2] > 0] *= [0.75, 0.85, 1]
        pieces = [moved(low, (0, 0, 0.6)), moved(cabin, (u(-0.3, 0.3), 0, 1.15))]
        wheel = revolved(np.array([[0, -0.1], [0.33, -0.1], [0.33, 0.1], [0, 0.1]]))
        turned = (wheel[0][:, [0, 2, 1]], wheel[1][:, [0, 2, 1]], wheel[2])
        for x in (-1, 1):
            for y in (-1, 1):
                pieces.append(moved(turned, (x * length * 0.32, y * wide / 2, 0.33)))
        return joined(pieces)
    if kind == 9:  # plant: leaves on a pot
        pieces = [revolved(np.array([[0, 0], [0.14, 0], [0.2, 0.35], [0, 0.35]]))]
        t = np.linspace(0, np.pi, 7)
        leaf = revolved(np.stack([np.sin(t), -np.cos(t)], 1), 8)
        for _ in range(rng.integers(8, 30)):
            turn = Rotation.random(random_state=rng.integers(2**31)).as_matrix()
            s = np.array([u(0.03, 0.1), u(0.005, 0.02), u(0.1, 0.35)])
            pieces.append(
                moved(
                    ((leaf[0] * s) @ turn.T, leaf[1] @ turn.T, leaf[2]),
                    (u(-0.3, 0.3), u(-0.3, 0.3), u(0.4, 1.3)),
                )
            )
        return joined(pieces)
    # a dog-like beast or a stack: several ellipsoids, so that limbs and a head are no proof
    t = np.linspace(0, np.pi, 9)
    ball = revolved(np.stack([np.sin(t), -np.cos(t)], 1), 12)
    long = u(0.25, 0.6)
    pieces = [
        moved((ball[0] * [long, long * 0.4, long * 0.4], ball[1], ball[2]), (0, 0, long * 1.3)),
        moved((ball[0] * long * 0.32, ball[1], ball[2]), (long, 0, long * 1.75)),
    ]
    for x in (-1, 1):
        for y in (-1, 1):
            pieces.append(
                moved(
                    (ball[0] * [0.1 * long, 0.1 * long, long * 0.7], ball[1], ball[2]),
                    (x * long * 0.7, y * long * 0.25, long * 0.65),
                )
            )
    return joined(pieces)


def surface(rng: np.random.Generator, count: int) -> np.ndarray:
    """Paint of a thing."""
    paint = fabric(rng)
    paint[6] = rng.integers(0, 8)
    paint[7] = np.exp(rng.uniform(np.log(0.7), np.log(20)))
    paint[8] = rng.uniform(0.1, 0.9)
    paint[10] = rng.uniform(0, 0.8) * (rng.random() < 0.4)
    return np.tile(paint, (count, 1))


def wall(rng: np.random.Generator, count: int) -> np.ndarray:
    paint = surface(rng, 1)[0]
    if rng.random() < 0.6:  # walls and floors are mostly plain
        grey = rng.uniform(0.15, 0.9)
        paint[:3] = np.clip(grey * rng.uniform(0.85, 1.15, 3), 0.02, 0.95)
        paint[3:6] = paint[:3] * rng.uniform(0.5, 1.2)
        paint[8] *= 0.5
    paint[7] = np.exp(rng.uniform(np.log(0.4), np.log(8)))
    paint[6] = rng.choice([0, 1, 2, 3, 5, 6, 7], p=[0.25, 0.25, 0.08, 0.08, 0.08, 0.13, 0.13])
    return np.tile(paint, (count, 1))
