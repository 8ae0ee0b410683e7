"""A clip of a class: a world, a camera that moves, things that move, and the camera's faults."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from cameras import CameraPath, camera_path
from recordings import Footage
from torch import Tensor
from worlds import Panorama, Plane, blob, made_texture, tone_mapped

from spikevideoformer.files import write_atomically

SHAPES = ((90, 120), (90, 160), (120, 90), (96, 96), (96, 128))
RATES_HZ = (10, 12, 15, 24, 25, 30)
LENGTH_S = 1.15
EXPOSED = 3  # moments that are averaged while the shutter is open
CHANGED, SHARE = 14 / 255, 0.02  # of a pixel in a quarter of a second; of pixels: something moves
PLAIN = 0.004  # mean step from a pixel to the next, below which nobody could see what moves


@dataclass(frozen=True)
class View:
    """The pictures of a clip while they are made.

    Attributes:
        height: of a picture, in pixels.
        width: of it.
        rate_hz: pictures a second.
        shutter: part of the time between two pictures in which light falls.
        reach: half of what the short side spans, at distance 1.
    """

    height: int
    width: int
    rate_hz: int
    shutter: float
    reach: float

    @property
    def moments_s(self) -> np.ndarray:
        """Of each exposure, picture by picture, ``[pictures * EXPOSED]``."""
        pictures = np.arange(round(LENGTH_S * self.rate_hz))[:, None]
        parts = np.arange(EXPOSED)[None] / EXPOSED * self.shutter
        return ((pictures + parts) / self.rate_hz).ravel()

    def plane(self) -> tuple[Tensor, Tensor]:
        """Where each pixel looks, in short sides from the middle, ``[H, W]`` each."""
        short = min(self.height, self.width)
        y = (torch.arange(self.height) + 0.5 - self.height / 2) / short
        x = (torch.arange(self.width) + 0.5 - self.width / 2) / short
        y, x = torch.meshgrid(y, x, indexing="ij")
        return x, y


def random_view(rng: np.random.Generator) -> View:
    """A size, a rate, a shutter and a lens of 35 to 85 degrees."""
    height, width = SHAPES[int(rng.integers(len(SHAPES)))]
    return View(
        height=height,
        width=width,
        rate_hz=int(rng.choice(RATES_HZ)),
        shutter=float(rng.uniform(0.1, 0.9)),
        reach=math.tan(math.radians(rng.uniform(35, 85)) / 2),
    )


def rendered(
    name: str,
    view: View,
    world: Panorama | Plane,
    sprites: list[Tensor],
    rng: np.random.Generator,
) -> np.ndarray | None:
    """The pictures of a clip, uint8 ``[T, H, W, 3]``; None where there is nothing to see.

    Args:
        name: the class.
        view: what is looked with.
        world: what stands still; of a `Plane` with several pictures the one of each moment.
        sprites: pictures ``[1, 3, h, w]`` that what moves is cut out of.
        rng: decides everything else.
    """
    path = camera_path(name, view.moments_s, rng)
    x, y = view.plane()
    bent = rng.uniform(-0.12, 0.12)  # barrel or cushion
    lens = 1 + bent * (x**2 + y**2)
    x, y = x * lens, y * lens
    rays = _rays(world, view, path, x, y, rng)
    curve = int(rng.integers(2**63))
    if name not in ("still", "moving_object"):
        middle = len(rays) // 2
        if detail(_shown(world.at(middle), rays[middle, None], curve)) < PLAIN:
            return None
    pictures = _shown(world, rays, curve)
    movers = 1 + int(rng.integers(3)) if name == "moving_object" else int(rng.random() < 0.15)
    if name == "moving_object" and isinstance(world, Plane) and len(world.pictures) > 1:
        movers = int(rng.integers(2))  # people move in the recording already
    if name == "still":
        movers = 0
    for _ in range(movers):
        sprite = sprites[int(rng.integers(len(sprites)))]
        big = name == "moving_object"
        pictures = _with_mover(pictures, view, path, (x, y), sprite, rng, big=big)
    return _photographed(pictures, rng)


def _shown(world: Panorama | Plane, rays: Tensor, curve: int) -> Tensor:
    """What a camera shows of a world at each moment, or of several while its shutter is open."""
    light = world.seen(rays)
    if len(rays) > 1:
        light = light.view(-1, EXPOSED, *light.shape[1:]).mean(1)
    return (
        tone_mapped(light, np.random.default_rng(curve)) if isinstance(world, Panorama) else light
    )


def detail(pictures: Tensor) -> float:
    """Mean absolute step from a pixel to the next, of pictures ``[T, 3, H, W]`` in [0, 1]."""
    grey = pictures.mean(1)
    across, down = (grey.diff(dim=d).abs().mean() for d in (1, 2))
    return float(torch.minimum(across, down))


def _exposed(moments: Tensor) -> Tensor:
    """The mean of what the open shutter saw, ``[T, ...]`` of ``[T * EXPOSED, ...]``."""
    return moments.view(-1, EXPOSED, *moments.shape[1:]).mean(1)


def _rays(
    world: Panorama | Plane,
    view: View,
    path: CameraPath,
    x: Tensor,
    y: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    """Directions of all pixels at all moments, ``[N, H, W, 3]``."""
    roll = torch.as_tensor(path.roll, dtype=torch.float32).view(-1, 1, 1)
    scale = torch.as_tensor(2 * view.reach / path.zoom, dtype=torch.float32).view(-1, 1, 1)
    along = scale * (roll.cos() * x - roll.sin() * y)
    down = scale * (roll.sin() * x + roll.cos() * y)
    ahead = torch.ones_like(along)
    if isinstance(world, Plane):  # the camera is shifted: pictures have no depth
        shift_x, shift_y = (
            torch.as_tensor(2 * view.reach * s, dtype=torch.float32).view(-1, 1, 1)
            for s in (path.x, path.y)
        )
        return torch.stack([along + shift_x, down + shift_y, ahead], dim=-1)
    # turned: a shift of one side is what the lens sees
    angle = 2 * math.atan(view.reach)
    pitch0, yaw0 = math.radians(rng.uniform(-25, 20)), rng.uniform(-math.pi, math.pi)
    pitch = torch.as_tensor(pitch0 + angle * path.y, dtype=torch.float32).view(-1, 1, 1)
    yaw = torch.as_tensor(yaw0 + angle * path.x, dtype=torch.float32).view(-1, 1, 1)
    down, ahead = pitch.cos() * down + pitch.sin() * ahead, pitch.cos() * ahead - pitch.sin() * down
    along, ahead = yaw.cos() * along + yaw.sin() * ahead, yaw.cos() * ahead - yaw.sin() * along
    return torch.stack([along, down, ahead], dim=-1)


def _with_mover(
    pictures: Tensor,
    view: View,
    path: CameraPath,
    plane: tuple[Tensor, Tensor],
    sprite: Tensor,
    rng: np.random.Generator,
    *,
    big: bool,
) -> Tensor:
    """Pictures ``[T, 3, H, W]`` with something cut out of `sprite` that moves through them."""
    t = view.moments_s - view.moments_s.mean()
    size = rng.uniform(0.14, 0.8) if big else rng.uniform(0.08, 0.25)  # its height, in sides
    speed, heading = rng.uniform(0.1, 1.2), rng.uniform(0, 2 * math.pi)
    if rng.random() < 0.6:  # most things move along the ground
        heading = rng.choice([0, math.pi]) + rng.normal(0, 0.15)
    if rng.random() < 0.25:  # to and fro
        rate_hz, phase = rng.uniform(0.4, 1.2), rng.uniform(0, 2 * math.pi)
        way = np.sin(2 * math.pi * rate_hz * t + phase) / (2 * math.pi * rate_hz)
    else:
        way = t
    step_hz, step = rng.uniform(1, 3), size * rng.uniform(0, 0.08)
    x0, y0 = rng.uniform(-0.3, 0.3, 2)
    sway = step * np.sin(2 * math.pi * step_hz * t)
    at_x = x0 + speed * math.cos(heading) * way - path.x
    at_y = y0 + speed * math.sin(heading) * way + sway - path.y
    # what the camera does to the world it does to what moves in it, too
    cos, sin = np.cos(path.roll), np.sin(path.roll)
    at_x, at_y = path.zoom * (cos * at_x + sin * at_y), path.zoom * (-sin * at_x + cos * at_y)
    turned = rng.normal(0, 0.15) + rng.normal(0, 0.3) * t - path.roll
    wide = 1 + rng.uniform(0, 0.25) * np.sin(2 * math.pi * rng.uniform(0.5, 3) * t)

    def field(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32).view(-1, 1, 1)

    x, y = plane[0] - field(at_x), plane[1] - field(at_y)
    cos_t, sin_t = field(np.cos(turned)), field(np.sin(turned))
    nearer = rng.normal(0, 0.5) if rng.random() < 0.5 else 0.0  # people come up to a camera, and go
    half = field(size / 2 * path.zoom * np.exp(nearer * t))
    grid = torch.stack(
        [(cos_t * x + sin_t * y) / (half * field(wide)), (cos_t * y - sin_t * x) / half], dim=-1
    )
    own = torch.cat([_piece(sprite, rng), blob(rng)], dim=1)
    seen = F.grid_sample(own.expand(len(grid), -1, -1, -1), grid, align_corners=False)
    alpha = seen[:, 3:]
    return pictures * (1 - _exposed(alpha)) + _exposed(seen[:, :3] * alpha)


def _piece(sprite: Tensor, rng: np.random.Generator, side: int = 96) -> Tensor:
    """A square of a picture, as it may be lit elsewhere, ``[1, 3, side, side]``."""
    _, _, height, width = sprite.shape
    cut = min(side, height, width)
    top, left = (int(rng.integers(n - cut + 1)) for n in (height, width))
    piece = sprite[..., top : top + cut, left : left + cut]
    piece = F.interpolate(piece, (side, side), mode="bilinear", align_corners=False)
    return (piece * rng.uniform(0.5, 1.5) + rng.uniform(-0.15, 0.15)).clamp(0, 1)


def _photographed(pictures: Tensor, rng: np.random.Generator) -> np.ndarray:
    """What a camera adds: blur, a dark rim, exposure that wanders, colours, noise."""
    T, _, H, W = pictures.shape
    if (blur := rng.uniform(-0.6, 1.0)) > 0.2:
        axis = torch.arange(-3, 4).float()
        kernel = torch.exp(-(axis**2) / (2 * blur**2))
        kernel = (kernel / kernel.sum()).expand(3, 1, -1)
        pictures = F.conv2d(pictures, kernel[:, :, None], padding=(0, 3), groups=3)
        pictures = F.conv2d(pictures, kernel[..., None], padding=(3, 0), groups=3)
    y = torch.linspace(-1, 1, H).view(1, 1, H, 1)
    x = torch.linspace(-1, 1, W)
    rim = 1 - max(0.0, rng.uniform(-0.3, 0.35)) * (x**2 + y**2) / 2
    t = torch.linspace(-0.5, 0.5, T).view(T, 1, 1, 1)
    light = 1 + rng.normal(0, 0.05) * t + rng.normal(0, 0.03) * torch.sin(6 * t)
    gain = torch.as_tensor(rng.uniform(0.9, 1.1, (1, 3, 1, 1)), dtype=torch.float32)
    pictures = (pictures * rim * light * gain).clamp(0, 1)
    if rng.random() < 0.08:
        pictures = pictures.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    noise = rng.uniform(0, 0.035) * rng.random()
    grain = torch.as_tensor(
        rng.standard_normal(pictures.shape, dtype=np.float32), dtype=torch.float32
    )
    pictures = pictures + noise * (0.4 + pictures.sqrt()) * grain
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def moves(pictures: Tensor) -> bool:
    """Whether things move in the middle square of a stretch of a recording of a fixed camera."""
    quarter_s = max(1, round(len(pictures) / LENGTH_S / 4))
    side = min(pictures.shape[2:])
    top, left = ((n - side) // 2 for n in pictures.shape[2:])
    grey = pictures[:, :, top : top + side : 4, left : left + side : 4].mean(1)
    changed = (grey[quarter_s:] - grey[:-quarter_s]).abs() > CHANGED
    return float(changed.float().mean((1, 2)).median()) > SHARE


def random_world(
    name: str,
    panoramas: list[Panorama],
    recordings: list[Footage],
    rng: np.random.Generator,
    view: View,
) -> tuple[Panorama | Plane, list[Tensor]]:
    """A world to look at in a clip of a class, and pictures to cut movers out of.

    Half of them are panoramas; of the rest, made textures and, where there are any, recordings as
    often.
    """
    other = panoramas[int(rng.integers(len(panoramas)))]
    sprites = [made_texture(rng, 256), tone_mapped(other.picture, rng)]
    if recordings:
        sprites.append(recordings[int(rng.integers(len(recordings)))].picture(rng))
    if rng.random() < 0.5:
        return panoramas[int(rng.integers(len(panoramas)))], sprites
    if not recordings or rng.random() < 0.5:
        made = made_texture(rng)
        # the short side spans 100 to 230 of 512 texels
        return Plane(made, 2 * view.reach * made.shape[2] / rng.uniform(100, 230)), sprites
    own, pictures = recordings[int(rng.integers(len(recordings)))], None
    if name != "still" and rng.random() < 0.5:
        pictures = own.playing(view.moments_s, rng)
        if name == "moving_object" and pictures is not None and not moves(pictures):
            pictures = None
    if pictures is None:
        pictures = own.picture(rng)
    # the view is 40 to 80 % of the short side of the recording
    return Plane(pictures, 2 * view.reach / rng.uniform(0.4, 0.8)), sprites


def write_clip(path: Path, pictures: np.ndarray, rate_hz: int, rng: np.random.Generator) -> None:
    """An MP4 as cameras and messengers write it: H.264 of any quality, whole or not at all."""
    quality, old = int(rng.integers(17, 36)), rng.random() < 0.15
    held = io.BytesIO()
    with av.open(held, "w", format="mp4") as container:
        if old:
            stream = container.add_stream("mpeg4", rate=rate_hz)
            stream.bit_rate = int(rng.integers(150_000, 900_000))
        else:
            # mbtree reads memory beyond narrow pictures: the same pictures, other bytes each time
            options = {"crf": str(quality), "preset": "veryfast", "threads": "1"}
            options["x264-params"] = "no-mbtree=1"
            stream = container.add_stream("libx264", rate=rate_hz, options=options)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    write_atomically(path, lambda file: file.write(held.getvalue()))
