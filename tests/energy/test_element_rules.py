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
