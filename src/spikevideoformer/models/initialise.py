"""What a fresh network begins with, beside its random weights."""

from typing import Any

import torch
from torch import Tensor, nn

from spikevideoformer.nn.statistics import measure_statistics

_CLIPS, _FRAMES, _SIZE = 4, 4, 64


def start_statistics(model: nn.Module, in_channels: int) -> None:
    """Give the batch norms of a fresh network the statistics of pictures, so that it fires.

    With the usual beginning (mean 0, variance 1) every convolution shrinks its input, and beyond
    the first layers no membrane reaches its threshold in evaluation. With these, rates on natural
    pictures lie between 0.05 and 0.4 spikes a frame (docs/initialisation.md). Training forgets
    them within tens of steps, and published or saved weights replace them.

    Args:
        model: left alone on the device ``meta`` and in half precision, where there is nothing to
            measure or to measure with.
        in_channels: channels of its input.
    """
    weight = next(model.parameters())
    if weight.device.type != "meta" and weight.dtype in (torch.float32, torch.float64):
        measure_statistics(model, [made_pictures(in_channels).to(weight.device, weight.dtype)])


def made_pictures(channels: int, seed: int = 0) -> Tensor:
    """Clips ``[4, 4, channels, 64, 64]`` with the spectrum of natural pictures, drifting slowly.

    Amplitudes fall with spatial frequency f as 1/f, and channels have most of their contrast in
    common; brightness and contrast vary from clip to clip. Normalised as input.

    Source: Field, "Relations between the statistics of natural images and the response properties
    of cortical cells", 1987.
    """
    # whatever device and type are the default just now
    plain: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
    drawn = {**plain, "generator": torch.Generator("cpu").manual_seed(seed)}
    side = 2 * _SIZE  # of a picture that repeats, of which the clip shows a part
    noise = torch.randn(_CLIPS, channels, side, side, **drawn)
    frequency = torch.fft.fftfreq(side, **plain)
    amplitude = 1 / torch.hypot(frequency[:, None], frequency).clamp(min=1 / side)
    pictures = torch.fft.ifft2(torch.fft.fft2(noise) * amplitude).real
    pictures = 0.3 * pictures + pictures.mean(1, keepdim=True)
    pictures = pictures - pictures.mean((1, 2, 3), keepdim=True)
    pictures = pictures / pictures.std((1, 2, 3), keepdim=True)
    contrast = 0.6 + 0.7 * torch.rand(_CLIPS, 1, 1, 1, **drawn)
    brightness = 1.4 * torch.rand(_CLIPS, 1, 1, 1, **drawn) - 0.7
    pictures = contrast * pictures + brightness
    starts = [t // 2 for t in range(_FRAMES)]
    return torch.stack([pictures[..., s : s + _SIZE, s : s + _SIZE] for s in starts], 1)
