"""What a camera looks at: a panorama, a picture or a made texture, looked up by ray.

Rays are ``[N, H, W, 3]``: x to the right, y down, z ahead. Colours are linear or display values,
``[N, 3, H, W]``, as the world holds them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

WRAP = 8  # columns of a panorama that are repeated at its sides, more than any filter needs


@dataclass(frozen=True)
class Panorama:
    """All directions around a place.

    Attributes:
        picture: equirectangular, linear light, ``[1, 3, 256, 512 + 2 WRAP]``.
    """

    picture: Tensor

    def at(self, moment: int) -> Panorama:
        """What there is at a moment."""
        return self

    def seen(self, rays: Tensor) -> Tensor:
        x, y, z = rays.unbind(-1)
        longitude = torch.atan2(x, z) / math.pi  # -1 to 1
        latitude = torch.atan2(y, torch.hypot(x, z)) / (math.pi / 2)
        width = self.picture.shape[-1]
        grid = torch.stack([longitude * (width - 2 * WRAP) / width, latitude], dim=-1)
        return _looked_up(self.picture, grid, "border")


@dataclass(frozen=True)
class Plane:
    """A picture straight ahead at distance 1, mirrored beyond its edges.

    Attributes:
        pictures: ``[1, 3, h, w]``, or one for each ray field (a video that goes on).
        height: of it, in units of the distance.
    """

    pictures: Tensor
    height: float

    def at(self, moment: int) -> Plane:
        """What there is at a moment."""
        return self if len(self.pictures) == 1 else Plane(self.pictures[moment, None], self.height)

    def seen(self, rays: Tensor) -> Tensor:
        z = rays[..., 2].clamp(min=0.05)
        scale = 2 / self.height
        shape = self.pictures.shape
        grid = torch.stack(
            [rays[..., 0] / z * scale * shape[2] / shape[3], rays[..., 1] / z * scale], dim=-1
        )
        return _looked_up(self.pictures, grid, "reflection")


def _looked_up(pictures: Tensor, grid: Tensor, padding: str) -> Tensor:
    if len(pictures) == 1:  # one picture for all: the fields below each other, [1, N H, W, 2]
        N, H, W, _ = grid.shape
        seen = F.grid_sample(
            pictures, grid.reshape(1, N * H, W, 2), padding_mode=padding, align_corners=False
        )
        return seen.view(3, N, H, W).transpose(0, 1)
    return F.grid_sample(pictures, grid, padding_mode=padding, align_corners=False)


def read_panorama(path: Path) -> Panorama:
    """An OpenEXR panorama, by FFmpeg's decoder."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    if frame.format.name not in ("gbrpf16le", "gbrpf32le"):
        raise ValueError(f"{path} decodes to {frame.format.name}; give an OpenEXR picture in RGB")
    kind = np.float16 if "16" in frame.format.name else np.float32
    planes = []
    for plane in frame.planes[:3]:
        row = np.frombuffer(bytes(plane), kind).reshape(frame.height, -1)
        planes.append(row[:, : frame.width].astype(np.float32))
    green, blue, red = planes
    light = torch.from_numpy(np.stack([red, green, blue])).clamp(0, 1e4)[None]
    return Panorama(torch.cat([light[..., -WRAP:], light, light[..., :WRAP]], dim=-1))


def tone_mapped(light: Tensor, rng: np.random.Generator) -> Tensor:
    """Linear light as a camera shows it: exposure, white balance and one of three curves."""
    middle = float(light.mean(1).median().clamp(min=1e-4))
    exposure = rng.uniform(0.12, 0.45) / middle
    balance = torch.as_tensor(rng.uniform(0.85, 1.15, (1, 3, 1, 1)), dtype=torch.float32)
    x = light * exposure * balance
    curve = rng.integers(3)
    if curve == 0:
        x = x / (1 + x) * 1.6  # Reinhard
    elif curve == 1:  # Narkowicz' fit of the ACES curve
        x = x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)
    return x.clamp(0, 1) ** (1 / 2.2)


def made_texture(rng: np.random.Generator, side: int = 512) -> Tensor:
    """A procedural picture, display values ``[1, 3, side, side]``.

    Leaves that cover each other in sizes by a power law (Lee, Mumford & Huang, 2001: the
    statistics of natural pictures), clouds of several octaves, or bricks and stripes.
    """
    kind = rng.choice(["leaves", "clouds", "rows"], p=[0.6, 0.2, 0.2])
    if kind == "clouds":
        return _coloured(_clouds(rng, side, falloff=rng.uniform(0.45, 0.8)), rng)
    base = Image.new("RGB", (side, side), _colour(rng))
    draw = ImageDraw.Draw(base)
    if kind == "rows":
        _rows(draw, rng, side)
    count = int(rng.integers(150, 500)) if kind == "leaves" else int(rng.integers(5, 60))
    for _ in range(count):
        _leaf(draw, rng, side)
    picture = torch.from_numpy(np.asarray(base).copy()).permute(2, 0, 1)[None].float() / 255
    grain = _clouds(rng, side, falloff=0.8) - 0.5
    return (picture * (1 + rng.uniform(0, 0.9) * grain)).clamp(0, 1)


def _leaf(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int) -> None:
    low, high = 0.008 * side, 0.22 * side
    radius = 1 / math.sqrt(rng.uniform(1 / high**2, 1 / low**2))  # density of radii as r^-3
    x, y = rng.uniform(0, side, 2)
    kind = rng.integers(4)
    colour = _colour(rng)
    if kind == 0:
        wide = radius * rng.uniform(0.4, 1)
        draw.ellipse((x - wide, y - radius, x + wide, y + radius), fill=colour)
    elif kind == 1:
        wide = radius * rng.uniform(0.3, 2)
        draw.rectangle((x - wide, y - radius, x + wide, y + radius), fill=colour)
    elif kind == 2:
        turns = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 9))))
        reach = radius * rng.uniform(0.5, 1.3, len(turns))
        corners = np.stack([x + reach * np.cos(turns), y + reach * np.sin(turns)], axis=1)
        draw.polygon([tuple(c) for c in corners.tolist()], fill=colour)
    else:
        turn, length = rng.uniform(0, math.pi), 4 * radius
        dx, dy = length * math.cos(turn), length * math.sin(turn)
        draw.line((x - dx, y - dy, x + dx, y + dy), fill=colour, width=max(1, int(radius / 6)))


def _rows(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int) -> None:
    tall = rng.uniform(0.03, 0.15) * side
    wide = tall * rng.uniform(0.5, 4)
    shift = rng.choice([0.0, 0.5])
    colours = [_colour(rng) for _ in range(int(rng.integers(1, 5)))]
    gap = rng.uniform(0.02, 0.12) * tall
    for row in range(int(side / tall) + 1):
        for column in range(-1, int(side / wide) + 1):
            x, y = (column + shift * (row % 2)) * wide, row * tall
            fill = colours[int(rng.integers(len(colours)))]
            draw.rectangle((x + gap, y + gap, x + wide - gap, y + tall - gap), fill=fill)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    grey = rng.beta(1.2, 1.2)
    tint = grey + rng.normal(0, 0.12, 3)
    red, green, blue = (int(v) for v in (255 * tint.clip(0, 1)))
    return red, green, blue


def _clouds(rng: np.random.Generator, side: int, falloff: float) -> Tensor:
    """Noise of octaves, each `falloff` times as strong as the coarser one, in [0, 1]."""
    total, strength = torch.zeros(1, 1, 4, 4), 1.0
    while True:
        noise = rng.standard_normal(total.shape, dtype=np.float32)
        total = total + strength * torch.from_numpy(noise)
        if total.shape[-1] >= side:
            break
        total = F.interpolate(total, scale_factor=2, mode="bilinear", align_corners=False)
        strength *= falloff
    low, high = total.min(), total.max()
    return ((total - low) / (high - low))[..., :side, :side]


def _coloured(grey: Tensor, rng: np.random.Generator) -> Tensor:
    stops = torch.tensor([_colour(rng) for _ in range(4)], dtype=torch.float32) / 255  # [4, 3]
    place = grey * (len(stops) - 1)
    low = place.long().clamp(max=len(stops) - 2)
    return torch.lerp(
        stops[low[0, 0]], stops[low[0, 0] + 1], (place - low)[0, 0, ..., None]
    ).permute(2, 0, 1)[None]


def blob(rng: np.random.Generator, side: int = 96) -> Tensor:
    """The shape of something that moves, in [0, 1], ``[1, 1, side, side]``, with air around it."""
    axis = torch.linspace(-1.2, 1.2, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    radius, turn = torch.hypot(x, y), torch.atan2(y, x)
    kind = rng.integers(3)
    if kind == 0:  # lobes
        edge = torch.full_like(turn, 0.75)
        for lobes in range(1, 7):
            strength, phase = rng.normal(0, 0.22 / lobes), rng.uniform(0, 2 * math.pi)
            edge = edge + strength * torch.cos(lobes * turn + phase)
        inside = edge - radius
    elif kind == 1:  # rounded box
        box_x, box_y = rng.uniform(0.4, 0.9, 2)
        inside = torch.minimum(box_x - x.abs(), box_y - y.abs())
    else:  # body with a head, a little like a figure
        body = 1 - torch.hypot(x / rng.uniform(0.3, 0.55), (y - 0.25) / 0.75)
        head = 1 - torch.hypot(x / 0.25, (y + 0.7) / 0.3)
        inside = torch.maximum(body, head) * 0.4
    return (inside * rng.uniform(8, 25)).clamp(0, 1)[None, None]
