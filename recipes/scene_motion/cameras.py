"""How a camera moves in a clip of each class: exact orientation and zoom at any moment.

Speeds are in short sides of the picture a second, so that they mean the same for every lens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

CLASSES = ("still", "pan", "tilt", "roll", "zoom", "shake", "moving_object")

PAN = (0.12, 1.1)  # sides a second, pan and tilt
ROLL = (12.0, 90.0)  # degrees a second
ZOOM = (1.2, 2.2)  # times a second, in or out
SHAKE = (0.011, 0.05)  # sides, root mean square in each direction
SHAKE_HZ = (2.0, 7.0)
TREMOR = 0.0015  # sides, at most, in a clip that counts as still


@dataclass(frozen=True, kw_only=True)
class CameraPath:
    """Where a camera looks at N moments.

    Attributes:
        x: to the right, in short sides of the picture at zoom 1, ``[N]``.
        y: down, the same.
        roll: in radians.
        zoom: focal length over that of the beginning.
    """

    x: np.ndarray
    y: np.ndarray
    roll: np.ndarray
    zoom: np.ndarray


def camera_path(name: str, moments_s: np.ndarray, rng: np.random.Generator) -> CameraPath:
    """A camera that does what the class says, with the small impurities of a real one."""
    t = moments_s - moments_s.mean()
    zero = np.zeros_like(t)
    x, y, roll, log_zoom = zero, zero, zero, zero
    sign = rng.choice([-1.0, 1.0])
    way = sign * _travelled(t, rng)  # about t, at a speed that varies a little
    if name in ("pan", "tilt"):
        speed = _log_uniform(rng, PAN)
        along, across = speed * way, speed * rng.uniform(-0.2, 0.2) * t
        x, y = (along, across) if name == "pan" else (across, along)
        roll, log_zoom = np.radians(rng.normal(0, 1.5)) * t, rng.normal(0, 0.02) * t
    elif name == "roll":
        roll = math.radians(_log_uniform(rng, ROLL)) * way
        x, y = rng.normal(0, 0.02) * t, rng.normal(0, 0.02) * t
        log_zoom = rng.normal(0, 0.03) * t
    elif name == "zoom":
        log_zoom = _log_uniform(rng, tuple(map(math.log, ZOOM))) * way
        x, y = rng.normal(0, 0.02) * t, rng.normal(0, 0.02) * t
        roll = np.radians(rng.normal(0, 1.5)) * t
    if name == "shake":
        strength = _log_uniform(rng, SHAKE)
        balance = rng.uniform(0.6, 1.0)
        x = strength * _tremor(t, rng, SHAKE_HZ)
        y = strength * balance * _tremor(t, rng, SHAKE_HZ)
        roll = strength * rng.uniform(0, 0.6) * _tremor(t, rng, SHAKE_HZ)
    else:  # most cameras are held or stand on a floor that is walked on
        most = TREMOR if name in ("still", "moving_object") else 3 * TREMOR
        strength = most * max(0.0, rng.uniform(-1, 1))
        x = x + strength * _tremor(t, rng, (1.0, 6.0))
        y = y + strength * _tremor(t, rng, (1.0, 6.0))
    return CameraPath(x=x, y=y, roll=roll, zoom=np.exp(log_zoom))


def _travelled(t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The integral of a speed around 1 that swells and fades by up to 40 %."""
    depth, rate_hz, phase = rng.uniform(0, 0.4), rng.uniform(0.2, 0.9), rng.uniform(0, 2 * math.pi)
    turn = 2 * math.pi * rate_hz
    return t + depth / turn * (np.sin(turn * t + phase) - np.sin(phase))


def _tremor(t: np.ndarray, rng: np.random.Generator, band_hz: tuple[float, float]) -> np.ndarray:
    """Waves of random frequency, phase and strength: mean square about 1, and no drift."""
    total = np.zeros_like(t)
    strengths = rng.uniform(0.3, 1.0, 4)
    for strength in strengths:
        rate_hz, phase = rng.uniform(*band_hz), rng.uniform(0, 2 * math.pi)
        total = total + strength * np.sin(2 * math.pi * rate_hz * t + phase)
    return total * math.sqrt(2 / np.square(strengths).sum())


def _log_uniform(rng: np.random.Generator, limits: tuple[float, ...]) -> float:
    low, high = limits
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))
