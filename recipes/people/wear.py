"""Lens, sensor and codec: what lies between the light and a picture."""

from __future__ import annotations

import cv2
import numpy as np

SUPER = 2  # pictures are drawn so many times larger


class Wear:
    """Lens, sensor and codec: from linear light at SUPER times the size to a picture."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        u = rng.uniform
        self.rng, self.size = rng, (width, height)
        self.bend = u(-0.3, 0.05) if rng.random() < 0.3 else 0.0
        w, h = width * SUPER, height * SUPER
        y, x = np.mgrid[:h, :w].astype(np.float32)
        nx, ny = (x - w / 2) / (h / 2), (y - h / 2) / (h / 2)
        r2 = nx**2 + ny**2
        factor = self._factor(r2)
        self.most = float(factor.max()) if self.bend < 0 else 1.0
        factor = factor / self.most
        self.map = (nx * factor * h / 2 + w / 2, ny * factor * h / 2 + h / 2)
        self.vignette = 1 - (u(0, 0.35) if rng.random() < 0.4 else 0) * np.clip(
            r2[::SUPER, ::SUPER, None] / 3, 0, 1
        )
        self.white = np.clip(rng.normal(1, 0.07, 3), 0.7, 1.3)
        self.gamma = u(0.75, 1.3)
        self.haze = u(0, 0.35) if rng.random() < 0.25 else 0.0
        self.contrast = u(0.7, 1.3)
        self.saturation = 0.0 if rng.random() < 0.06 else u(0.5, 1.3)
        self.noise = np.exp(u(np.log(0.002), np.log(0.04)))
        self.blur = u(0.3, 1.6) if rng.random() < 0.35 else 0.0
        self.streak = (u(2, 7), u(0, np.pi)) if rng.random() < 0.15 else None
        self.small = u(0.35, 0.9) if rng.random() < 0.25 else 1.0
        self.quality = int(u(25, 90)) if rng.random() < 0.5 else 0

    def _factor(self, r2: np.ndarray) -> np.ndarray:
        """How much nearer to the middle what is seen at a squared radius was without the lens."""
        return 1 - self.bend * r2 / (1 + abs(self.bend) * 2)

    def bent(self, pixels: np.ndarray) -> np.ndarray:
        """Where the lens puts what a pinhole has at these pixels [..., 2]."""
        if not self.bend:
            return pixels
        half = np.array(self.size) / 2
        straight = (pixels - half) / half[1]
        wanted = np.linalg.norm(straight, axis=-1, keepdims=True)
        low, high = np.zeros_like(wanted), np.full_like(wanted, 2.5)  # radii, in half heights
        for _ in range(40):
            middle = (low + high) / 2
            near = middle * self._factor(middle**2) / self.most < wanted
            low, high = np.where(near, middle, low), np.where(near, high, middle)
        ratio = np.where(wanted > 1e-9, low / np.maximum(wanted, 1e-9), self.most)
        ratio = np.where(low > 2.49, 1, ratio)  # far outside of the picture: left where it is
        return straight * ratio * half[1] + half

    def __call__(
        self, colour: np.ndarray, label: np.ndarray, number: int
    ) -> tuple[np.ndarray, np.ndarray]:
        width, height = self.size
        if self.bend:
            colour = cv2.remap(colour, *self.map, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            label = cv2.remap(label, *self.map, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
        colour = cv2.resize(
            colour * self.white.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
        )
        mask = np.zeros((height, width), np.uint8)
        if label.any():
            some = cv2.resize(
                (label > 0).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
            )
            who = label[SUPER // 2 :: SUPER, SUPER // 2 :: SUPER]
            whose = np.where(who > 0, who, cv2.dilate(label, np.ones((3, 3)))[::SUPER, ::SUPER])
            mask = np.where(some >= 0.5, whose, 0).astype(np.uint8)
        colour = np.clip(colour * self.vignette, 0, None)
        colour = np.clip(colour * (1 + colour / 6) / (1 + colour), 0, 1) ** (self.gamma / 2.2)
        grey = colour.mean(-1, keepdims=True)
        colour = grey + (colour - grey) * self.saturation
        colour = (colour - 0.5) * self.contrast + 0.5
        colour = colour * (1 - self.haze) + self.haze * 0.6
        if self.blur:
            colour = cv2.GaussianBlur(colour, (0, 0), self.blur)
        if self.streak:
            length, angle = self.streak
            kernel = np.zeros((9, 9), np.float32)
            d = np.array([np.cos(angle), np.sin(angle)]) * length / 2
            cv2.line(
                kernel,
                tuple((4 - d).round().astype(int).tolist()),
                tuple((4 + d).round().astype(int).tolist()),
                1,
            )
            colour = cv2.filter2D(colour, -1, kernel / kernel.sum())
        if self.small < 1:
            tiny = cv2.resize(
                colour, None, fx=self.small, fy=self.small, interpolation=cv2.INTER_AREA
            )
            colour = cv2.resize(tiny, (width, height), interpolation=cv2.INTER_LINEAR)
        colour = colour + self.rng.normal(0, self.noise, colour.shape) * np.sqrt(
            np.clip(colour, 0.05, 1)
        )
        picture = (np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8)
        if self.quality:
            coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
            picture = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        return picture, mask
