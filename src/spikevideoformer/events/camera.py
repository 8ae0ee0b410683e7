"""An event camera that looks at ordinary video: training data where no recording is at hand.

Each pixel remembers the level of log light at its last event, and fires again whenever the light
is a threshold above or below it. Between two pictures log light is taken to change linearly, which
gives the events their times: ESIM (Rebecq et al., CoRL 2018), as SynEventHPD was made too. Of v2e
(Hu et al., CVPRW 2021) there are thresholds that differ by pixel, but not its slow pixels in the
dark, its leak and its shot noise.

A picture of 8 bits is no measurement of light: sRGB is undone first (`log_light`). What moves
farther than its own size between two pictures leaves events at both places and none in between, so
video should have a high frame rate for its motion.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64, UInt8

from spikevideoformer.events.spec import LEAST_THRESHOLD
from spikevideoformer.events.spec import EventCamera as EventCamera
from spikevideoformer.events.stream import EventStream

_LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Weights of linear R, G, B in luminance. Source: IEC 61966-2-1 (the Y row of sRGB to XYZ)."""


def _linear_srgb() -> Float64[np.ndarray, 256]:
    """Light, 0 to 1, of each byte of an sRGB picture. Source: IEC 61966-2-1."""
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


_LINEAR = _linear_srgb()


def log_light(image: UInt8[np.ndarray, "H W 3"], log_eps: float) -> Float64[np.ndarray, "H W"]:
    """Logarithm of the light in an sRGB picture.

    Equation:
        ln(log_eps + 0.2126 R + 0.7152 G + 0.0722 B), with R, G, B linearised by sRGB's curve
        (about the power 2.2) and white at 1.

    Args:
        image: the picture.
        log_eps: as in `EventCamera`.
    """
    light = sum(
        (_LINEAR * weight)[image[..., channel]] for channel, weight in enumerate(_LUMINANCE)
    )
    return np.log(log_eps + light)


class EventSimulator:
    """The camera at work: pictures in, events out; it holds the state of each pixel and no events.

    Args:
        camera: the sensor.
    """

    def __init__(self, camera: EventCamera = EventCamera()) -> None:  # noqa: B008 - frozen
        self.camera = camera
        # Set by the first picture; pixels in one row, [H*W].
        self._shape: tuple[int, int] | None = None
        self._time_s = -math.inf
        self._log = self._level = self._fired_s = np.zeros(0)
        self._thresholds = np.zeros((2, 0))

    def step(self, image: UInt8[np.ndarray, "H W 3"], timestamp_s: float) -> EventStream:
        """Look at the next picture.

        Args:
            image: RGB.
            timestamp_s: when it was taken, not before the one ahead of it; at the same time, all
                that changed does so at once.

        Returns:
            Events after the picture before, up to this one. The first picture gives none: the
            pixels take its light as their level.

        Raises:
            ValueError: a time that falls, or a picture of another size.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(
                f"pictures must be uint8 RGB [H, W, 3], got {image.dtype} {list(image.shape)}"
            )
        H, W = image.shape[:2]
        log = log_light(image, self.camera.log_eps).reshape(-1)  # [H, W] -> [H*W]
        if not math.isfinite(timestamp_s):
            raise ValueError(f"timestamp_s must be a finite number, got {timestamp_s}")
        if self._shape is None:
            self._switch_on(H, W, log, timestamp_s)
        if self._shape != (H, W):
            raise ValueError(f"pictures must have one size: got {(H, W)} after {self._shape}")
        if timestamp_s < self._time_s:
            raise ValueError(
                f"times of pictures must not fall: got {timestamp_s} s after {self._time_s} s"
            )
        change = log - self._level
        rises = change > 0
        threshold = np.asarray(np.where(rises, *self._thresholds))
        # Of a pixel that did not change, rounding alone could say that it is a threshold away.
        crossings = (np.abs(change) / threshold).astype(np.int64) * (log != self._log)
        step = np.where(rises, threshold, -threshold)
        times, pixels = self._fire(log, timestamp_s, crossings, step)
        self._level += crossings * step
        self._log, self._time_s = log, timestamp_s
        order = np.argsort(times, kind="stable")
        pixels = pixels[order]
        return EventStream(
            t_s=times[order],
            x=pixels % W,
            y=pixels // W,
            polarity=rises[pixels],
            height=H,
            width=W,
        )

    def _switch_on(
        self, H: int, W: int, log: Float64[np.ndarray, " n"], timestamp_s: float
    ) -> None:
        camera = self.camera
        rng = np.random.default_rng(camera.seed)
        noise = camera.threshold_noise * rng.standard_normal((2, H * W))
        # Of positive events, of negative ones.
        self._thresholds = np.maximum(camera.threshold + noise, LEAST_THRESHOLD)
        self._shape, self._log, self._time_s = (H, W), log, timestamp_s
        self._level = log.copy()
        self._fired_s = np.full(H * W, -np.inf)  # when each pixel last fired

    def _fire(
        self,
        log: Float64[np.ndarray, " n"],
        timestamp_s: float,
        crossings: np.ndarray,
        step: Float64[np.ndarray, " n"],
    ) -> tuple[Float64[np.ndarray, " N"], np.ndarray]:
        """Times and pixels of the events, not in order: first events of all pixels, second ..."""
        elapsed_s = timestamp_s - self._time_s
        times: list[np.ndarray] = [np.zeros(0)]
        pixels: list[np.ndarray] = [np.zeros(0, np.int64)]
        pixel = np.flatnonzero(crossings)
        for k in range(1, crossings.max() + 1):
            pixel = pixel[crossings[pixel] >= k]
            # The last level lies within a threshold of the last log light: each level is crossed
            # between the two pictures, in order, and rounding alone could put it outside.
            before = self._log[pixel]
            part = (self._level[pixel] + k * step[pixel] - before) / (log[pixel] - before)
            time = np.minimum(self._time_s + np.clip(part, 0, 1) * elapsed_s, timestamp_s)
            awake = time - self._fired_s[pixel] >= self.camera.refractory_s
            self._fired_s[pixel[awake]] = time[awake]
            times.append(time[awake])
            pixels.append(pixel[awake])
        return np.concatenate(times), np.concatenate(pixels)
