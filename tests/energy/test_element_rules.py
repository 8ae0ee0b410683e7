"""Operations element by element and data movement: amounts, and what becomes of spikes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikevideoformer.energy.record import WORK

# --- Tags -----------------------------------------------------------------------------------------


def _written(s: Tensor) -> Tensor:
    wide = torch.zeros(2, 6, 4)
    wide[:, 1:-1] = s
    return wide


MOVES = {
    "view": lambda s: s.reshape(4, 2, 4),
    "permute": lambda s: s.permute(0, 2, 1).contiguous().reshape(8, 4),
    "cast": lambda s: s.to(torch.bfloat16).to(torch.float32),
    "cat": lambda s: torch.cat([s, s]),
    "stack": lambda s: torch.stack([s, s]),
    "split": lambda s: s.split(1)[0],
    "pad": lambda s: F.pad(s, (0, 0, 1, 1)),
    "slice": lambda s: s[:, ::2],
    "written": _written,
    "expand": lambda s: s.unsqueeze(0).expand(3, *s.shape),
}


@pytest.mark.parametrize("name", MOVES)
def test_spikes_stay_spikes(counted, fires, currents, name) -> None:
    class Moves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron, self.fc = fires(), nn.Linear(4, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(MOVES[name](self.neuron(x)))

    x = currents(2, 4, 4)
    counts = counted(Moves(), x)
    (fc,) = (o for o in counts.operations if o.kind == "linear")
    spikes = MOVES[name]((x > 0).float())
    assert (fc.operand, fc.acs) == ("spikes", 3 * spikes.sum().item())
    moved = [o for o in counts.operations if o.kind == "memory"]
    assert all(getattr(o, w) == 0 for o in moved for w in WORK if w not in ("bits_in", "bits_out"))


@pytest.mark.parametrize("spiking", [False, True])
@pytest.mark.parametrize(
    ("height", "rows"),  # how many rows of the input each of four cells spans
    [(8, [2, 2, 2, 2]), (10, [3, 3, 3, 3]), (6, [2, 2, 2, 2]), (3, [1, 2, 2, 1])],
)
def test_cells_of_an_adaptive_mean(counted, fires, currents, height, rows, spiking) -> None:
    pool = nn.AdaptiveAvgPool2d(4)
    x = currents(2, 3, height, 8)
    counts = counted(nn.Sequential(fires(), pool) if spiking else pool, x)
    (mean,) = (o for o in counts.operations if o.kind == "pooling")
    sizes = torch.tensor(rows)[:, None] * torch.full((4,), 2)
    additions = 6 * (sizes - 1).sum().item()
    if spiking:
        additions = (pool((x > 0).float()) * sizes).sum().item()
    assert mean.additions == pytest.approx(additions)
    times = 6 * 16 if height == 10 else 0  # one sixth; one half and one quarter are shifts
    assert (mean.multiplications, mean.shifts) == (times, 6 * 16 - times)


def test_spikes_stay_spikes_in_cells_of_one(layers, fires, currents) -> None:
    x = currents(2, 3, 2, 4)
    module = nn.Sequential(
        fires(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 5, bias=False)
    )
    pooled, fc = layers(module, x, kinds="memory linear")
    assert {getattr(pooled, name) for name in WORK if not name.startswith("bits")} == {0}
    assert (fc.operand, fc.additions) == ("spikes", 5 * 2 * (x > 0).sum().item())


@pytest.mark.parametrize(
    ("sizes", "options", "shifts", "multiplications", "additions"),
    [  # for each output
        ((8, 8), {}, 3, 0, 6),  # a quarter of each difference
        ((16, 16), {}, 4.5, 0, 7.5),  # an eighth of half of them, three eighths of the other
        ((16, 8), {}, 3.5, 0, 6.5),  # one of three differences is along the first axis
        ((8, 4), {}, 1, 0, 6),
        ((12, 12), {}, 0, 2, 6),  # a third of two in three
        ((10, 8), {}, 2, 1, 6),  # no whole factor
        ((8, 8), {"align_corners": True}, 0, 3, 6),
    ],
)
def test_bilinear_upsampling(counted, sizes, options, shifts, multiplications, additions) -> None:
    class Up(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(x, sizes, mode="bilinear", **options)

    total = counted(Up(), torch.randn(2, 3, 4, 4)).total
    n = 2 * 3 * sizes[0] * sizes[1]
    assert total.shifts == pytest.approx(shifts * n)
    assert total.multiplications == pytest.approx(multiplications * n)
    assert total.additions == pytest.approx(additions * n)


@pytest.mark.parametrize("factor", [2, 4])
def test_weights_of_upsampling_are_the_ones_counted(factor) -> None:
    """What a column of height 1 spreads to: its distances to the outputs, as the rule has them."""
    x = torch.zeros(1, 1, 1, 5, dtype=torch.float64)
    x[..., 2] = 1
    y = F.interpolate(x, scale_factor=(1, factor), mode="bilinear")[0, 0, 0]
    near = [abs((k + 0.5) / factor - 0.5) for k in range(factor)]
    expected = sorted([1 - w for w in near] + near)
    assert sorted(y[y > 0].tolist()) == expected


def test_scaled_spikes_are_real(fires, layers) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron, self.fc = fires(), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.neuron(x) * 0.3)

    (fc,) = layers(Scaled(), torch.full((2, 4, 4), 4.0))
    assert (fc.operand, fc.acs, fc.multiplications) == ("real", 0, 2 * 4 * 4 * 3)


def test_rate_in_front_of_real_values(fires, layers, currents) -> None:
    x = currents(2, 4, 6, 6)
    module = nn.Sequential(
        fires(), nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1)
    )
    dw, pw = layers(module, x)
    assert (pw.rate, pw.operand) == (None, "real")
    assert pw.paper_rate == dw.rate == pytest.approx((x > 0).float().mean().item())
    assert pw.multiplications == 2 * 16 * 4 * 5
