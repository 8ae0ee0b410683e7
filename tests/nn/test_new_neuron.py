"""docs/new_neuron.md as printed adds a kind of neuron, and all that stands on neurons has it."""

import json
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import spikevideoformer as svf
from spikevideoformer import cli
from spikevideoformer.energy.count import count_operations
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.neuron import NEURONS, Neuron, make_neuron
from spikevideoformer.ops.lif import NeuronConfig, lif
from spikevideoformer.ops.neuron_config import KINDS
from spikevideoformer.synth.directions import write_direction_clips
from spikevideoformer.training.config import TrainConfig
from spikevideoformer.training.train import train

from ..snippets import REPOSITORY, blocks

KIND = "parametric_lif"
LIVELY = {"kind": KIND, "v_threshold": 0.1}


@pytest.fixture(scope="module", autouse=True)
def _page() -> Iterator[None]:
    """What the page says is done, and undone after the tests."""
    tables = KINDS, NEURONS
    names: dict[str, object] = {"__name__": "page"}
    try:
        for block in blocks(REPOSITORY / "docs" / "new_neuron.md"):
            exec(compile(block.text, str(block), "exec"), names)
        yield
    finally:
        for table in tables:
            table.pop(KIND, None)


def _model() -> SpikeVideoFormer:
    return svf.create_model("svf_nano", num_classes=4, neuron=LIVELY, residual_gain=1.0)


@pytest.mark.parametrize("v_reset", [None, 0.0, -0.5])
@pytest.mark.parametrize("reset", [False, True])
def test_with_its_first_leak_it_is_lif(v_reset, reset):
    neuron = make_neuron(NeuronConfig(kind=KIND, v_reset=v_reset), reset)
    like = Neuron(NeuronConfig(v_reset=v_reset), reset)
    norm, x = nn.BatchNorm2d(3).eval(), 1.5 * torch.randn(5, 2, 3, 4, 4)
    assert 0 < neuron(x).mean() < 1
    for z in (x, x.bfloat16()):
        assert torch.equal(neuron(z), like(z))
        assert neuron(z).dtype == z.dtype
    assert torch.equal(neuron(x, norm=norm), like(x, norm=norm))
    if not reset:
        first, v = neuron.run(x[:2])
        second, v = neuron.run(x[2:], v)
        whole, v_whole = lif(x, like.config)
        assert torch.equal(torch.cat([first, second]), whole)
        assert torch.equal(v, v_whole)


def test_every_leak_is_learnt():
    model, video, labels = _model(), torch.randn(4, 3, 3, 32, 32), torch.arange(4)
    leaks = [m.w for m in model.modules() if isinstance(m, Neuron)]
    assert len(leaks) == 37
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(video), labels)
        loss.backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
        assert all(leak.grad != 0 for leak in leaks)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_its_steps_are_counted():
    """Of all neurons and frames: additions of charge (two), threshold and reset."""
    neuron, x = (
        make_neuron(NeuronConfig(kind=KIND, tau=3.0, v_reset=None)),
        torch.randn(5, 2, 3, 4, 4),
    )
    with torch.no_grad():
        neuron.w += 0.1
    counts = count_operations(neuron.eval(), x)
    work = {
        name: sum(getattr(o, name) for o in counts.operations) / x.numel()
        for name in ("additions", "multiplications", "comparisons", "neuron_updates")
    }
    assert {o.kind for o in counts.operations} == {"neuron", "memory"}
    assert work == {"additions": 4, "multiplications": 1, "comparisons": 1, "neuron_updates": 1}
    assert counts.neurons[0].levels == 1


def test_all_commands_take_it(tmp_path, capsys):
    write_direction_clips(tmp_path / "clips", train=16, val=8)
    settings = {"epochs": 1, "size": 32, "frames": 2, "batch_size": 8, "workers": 0}
    train(
        TrainConfig(
            data=tmp_path / "clips",
            out=tmp_path / "run",
            neuron=LIVELY,
            residual_gain=1.0,
            **settings,
        )
    )
    folder = tmp_path / "run" / "model"
    assert json.loads((folder / "config.json").read_text())["model"]["neuron"]["kind"] == KIND
    loaded = svf.SpikeVideoFormer.from_pretrained(folder)
    assert all(hasattr(m, "w") for m in loaded.modules() if isinstance(m, Neuron))
    clip = next((tmp_path / "clips" / "val").rglob("*.mp4"))
    capsys.readouterr()
    predict = ["predict", "--model", str(folder), str(clip), "--json"]
    assert cli.main(predict) == 0
    assert cli.main([*predict, "--engine", "model"]) == 0
    by_itself, by_model = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert by_itself == by_model
    assert cli.main([*predict, "--engine", "exact"]) == 2
    error = capsys.readouterr().err
    assert "the engine runs neurons of kind lif, integer_lif or ni_lif" in error
    assert cli.main(["energy", "--model", str(folder), "--clips", "1", "--json"]) == 0


def test_folding_refuses_it_in_one_line():
    with pytest.raises(ValueError, match=r"of kind lif, integer_lif or ni_lif.*parametric_lif"):
        svf.fold_for_inference(_model())


def test_no_kernel_computes_it():
    neuron = make_neuron(NeuronConfig(kind=KIND))
    neuron.backend = "fused"
    with pytest.raises(ValueError, match=r"kind parametric_lif, which no kernel computes"):
        neuron(torch.zeros(2, 3))


def test_fields_that_it_does_not_have_are_refused():
    with pytest.raises(ValueError, match="which a parametric_lif does not have"):
        NeuronConfig(kind=KIND, decay_input=False)
