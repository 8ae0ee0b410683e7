"""How the work of attention grows with the number of frames: spiking and softmax.

Closed forms, and the counter on the attention alone; the two must be equal.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevideoformer.energy.count import count_operations
from spikevideoformer.energy.record import Counts
from spikevideoformer.figures import legend_above
from spikevideoformer.files import save_figure
from spikevideoformer.models.config import ModelConfig
from spikevideoformer.ops.hamming import hamming_attention

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRAMES = (8, 16, 32, 64, 128)


@dataclass(frozen=True, kw_only=True)
class GrowthPoint:
    """The attention of all blocks, joint over space and time, for one number of frames.

    Attributes:
        frames: T.
        tokens: N = T H W.
        spiking_additions: of both products of Hamming attention.
        softmax_macs: of both products of softmax attention: as many multiplications and additions.
        softmax_exponentials: of its softmax.
    """

    frames: int
    tokens: int
    spiking_additions: float
    softmax_macs: float
    softmax_exponentials: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def attention_growth(
    config: ModelConfig,
    *,
    frames: Sequence[int] = FRAMES,
    tokens_per_frame: int = 14 * 14,
    value_rate: float = 0.2,
) -> list[GrowthPoint]:
    """Closed forms for the attention of a network.

    Equation (a block of width C = h d, N tokens):
        spiking   N C d rate(V) for K'^T V, N C d for Q' A         linear in T
        softmax   2 N N C MACs and h N N exponentials              quadratic in T

    Args:
        config: the network; its design is taken as joint.
        frames: numbers of frames.
        tokens_per_frame: H W at the attention, 14 x 14 for 224 x 224 pixels.
        value_rate: firing rate of V, in [0, 1].

    Raises:
        ValueError: a rate outside [0, 1], or no tokens.
    """
    if not 0 <= value_rate <= 1:
        raise ValueError(f"value_rate is {value_rate}; give a firing rate in [0, 1]")
    if tokens_per_frame < 1 or not frames or min(frames) < 1:
        raise ValueError("growth needs at least one frame and one token in it")
    widths = attention_widths(config)
    points = []
    for T in frames:
        N = T * tokens_per_frame
        points.append(
            GrowthPoint(
                frames=T,
                tokens=N,
                spiking_additions=sum(
                    N * C * (C // config.heads) * (1 + value_rate) for C in widths
                ),
                softmax_macs=float(sum(2 * N * N * C for C in widths)),
                softmax_exponentials=float(len(widths) * config.heads * N * N),
            )
        )
    return points


def attention_widths(config: ModelConfig) -> list[int]:
    """C of every block that has attention."""
    stages = zip(config.widths[2:], config.depths[3:], strict=True)
    return [width for width, blocks in stages for _ in range(blocks)]


class HammingProducts(nn.Module):
    """Hamming attention alone, on values that fire from 1/2 on."""

    def forward(self, qkv: Tensor) -> Tensor:
        """``[3, h, N, d]`` in [0, 1] -> sums ``[h, N, d]``."""
        q, k, v = (qkv >= 0.5).to(qkv.dtype).unbind()
        return hamming_attention(q, k, v, scale=1.0, backend="reference")


class SoftmaxProducts(nn.Module):
    """Softmax attention alone."""

    def forward(self, qkv: Tensor) -> Tensor:
        """``[3, h, N, d]`` -> ``[h, N, d]``."""
        q, k, v = qkv.unbind()
        return F.scaled_dot_product_attention(q, k, v)


def counted_growth(
    config: ModelConfig,
    *,
    frames: Sequence[int] = FRAMES,
    tokens_per_frame: int = 14 * 14,
    value_rate: float = 0.2,
    seed: int = 0,
) -> list[GrowthPoint]:
    """The same from the counter, on random spikes of that rate.

    Softmax attention runs without values (meta device), since its work depends on shapes alone.
    Arguments as :func:`attention_growth`.
    """
    generator = torch.Generator().manual_seed(seed)
    widths = attention_widths(config)
    points = []
    for T in frames:
        N = T * tokens_per_frame
        additions, macs, exponentials = 0.0, 0.0, 0.0
        for C in sorted(set(widths)):
            blocks, shape = widths.count(C), (3, config.heads, N, C // config.heads)
            values = _with_rate(value_rate, shape, generator)
            spiking = count_operations(HammingProducts().eval(), values)
            softmax = count_operations(SoftmaxProducts().eval(), torch.empty(shape, device="meta"))
            additions += blocks * _products(spiking, "additions")
            macs += blocks * _products(softmax, "macs")
            exponentials += blocks * softmax.total.exponentials
        points.append(
            GrowthPoint(
                frames=T,
                tokens=N,
                spiking_additions=additions,
                softmax_macs=macs,
                softmax_exponentials=exponentials,
            )
        )
    return points


def _with_rate(rate: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """0 and 1 of which a share ``rate`` is 1 in each third, exactly up to one element."""
    count = torch.Size(shape[1:]).numel()
    thirds = torch.zeros(shape[0], count)
    for third in thirds:
        third[torch.randperm(count, generator=generator)[: round(rate * count)]] = 1
    return thirds.reshape(shape)


def _products(counts: Counts, name: str) -> float:
    return sum(getattr(o, name) for o in counts.operations if o.kind == "attention")


def plot_growth(points: Sequence[GrowthPoint], path: Path) -> None:
    """Draw the work of both against T as PNG, with both axes logarithmic.

    Args:
        points: at least one.
        path: the PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    draw_growth(points, figure.subplots())
    save_figure(figure, path)


def draw_growth(points: Sequence[GrowthPoint], panel: "Axes") -> None:
    """The same into the axes of a figure."""
    T = [point.frames for point in points]
    for label, values, colour in (
        ("softmax: multiply-accumulates, as T²", [p.softmax_macs for p in points], "tab:red"),
        ("Hamming: additions, as T", [p.spiking_additions for p in points], "tab:green"),
    ):
        panel.plot(T, values, marker="o", color=colour, label=label)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(T, [str(t) for t in T])
    panel.set(xlabel="frames T", ylabel="operations of attention in a clip")
    panel.grid(alpha=0.3)
    legend_above(panel)


def format_growth(points: Sequence[GrowthPoint]) -> str:
    """The points as a table, with the ratio of softmax MACs to spiking additions."""
    lines = [f"{'T':>4} {'tokens':>7} {'additions':>12} {'softmax MACs':>13} {'ratio':>7}"]
    for p in points:
        ratio = p.softmax_macs / p.spiking_additions
        lines.append(
            f"{p.frames:>4} {p.tokens:>7} {p.spiking_additions:>12.4g} {p.softmax_macs:>13.4g} "
            f"{ratio:>7.1f}"
        )
    return "\n".join(lines)
