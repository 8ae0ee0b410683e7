"""The report: conventions by hand on a small network, and all that is printed of a real one."""

import csv
import io
import json
from html import escape

import pytest
import torch
from torch import Tensor, nn

import spikevideoformer as svf
from spikevideoformer.energy.cost import CostTable
from spikevideoformer.energy.report import EnergyReport, energy_report
from spikevideoformer.nn.neuron import Neuron
from spikevideoformer.ops.lif import NeuronConfig

T = 2


class Small(nn.Module):
    """Conv on pixels, neurons, depthwise and pointwise, mean, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.neuron = Neuron(NeuronConfig())
        self.dw = nn.Conv2d(4, 4, 3, groups=4, bias=False)
        self.pw = nn.Conv2d(4, 5, 1, bias=False)
        self.fc = nn.Linear(5, 2, bias=False)

    def forward(self, video: Tensor) -> Tensor:
        x = self.bn(self.first(video[0]))  # [T, 4, 4, 4]: frames are images
        x = self.neuron(x.unsqueeze(1))[:, 0]
        return self.fc(self.pw(self.dw(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def small() -> tuple[EnergyReport, float]:
    """Its report, and how many spikes it fired."""
    torch.manual_seed(0)
    model, video = Small().eval(), 3 * torch.randn(1, T, 3, 6, 6)
    seen: list[Tensor] = []
    model.neuron.register_forward_hook(lambda *a: seen.append(a[2]))
    report = energy_report(model, video)
    spikes = seen[0].sum().item()
    assert 10 < spikes < T * 4 * 16
    return report, spikes


FIRST, DW, PW, FC = T * 16 * 27 * 4, T * 4 * 9 * 4, T * 4 * 4 * 5, T * 5 * 2


def test_papers_convention(small) -> None:
    report, spikes = small
    rate = spikes / (T * 4 * 16)
    paper = report.by_convention("paper")
    assert paper.energy_mj == pytest.approx((4.6 * FIRST + 0.9 * (DW + PW + FC) * rate) * 1e-9)
    assert paper.work.macs == FIRST + DW + PW + FC
    assert paper.memory_mj is None


def test_as_executed(small) -> None:
    report, _ = small
    executed = report.by_convention("executed")
    (dw,) = (o for o in report.layers if o.module == "dw")
    norm, neuron = T * 4 * 16, T * 4 * 16
    mean = T * 5  # of four pixels: three additions and a shift each
    assert executed.work.multiplications == FIRST + PW + FC + norm
    assert executed.work.additions == FIRST + dw.acs + PW + FC + norm + 2 * neuron + 3 * mean
    assert executed.work.shifts == neuron + mean
    assert executed.work.comparisons == executed.work.neuron_updates == neuron
    additions = executed.work.additions + executed.work.comparisons
    expected = 3.7 * executed.work.multiplications + 0.9 * additions
    expected += 0.03 * executed.work.shifts
    assert executed.energy_mj == pytest.approx(expected * 1e-9)
    assert executed.memory_mj > executed.energy_mj  # weights from DRAM


def test_ann_of_the_same_shape(small) -> None:
    report, _ = small
    macs = FIRST + DW + PW + FC
    assert report.by_convention("ANN, paper").energy_mj == pytest.approx(4.6 * macs * 1e-9)
    assert report.by_convention("ANN").energy_mj == pytest.approx(4.6 * macs * 1e-9)


def test_latency(small) -> None:
    report, _ = small
    (dw,) = (o for o in report.layers if o.module == "dw")
    expected = 2 * (FIRST + PW + FC) / 691.2e9 + dw.acs / 5529.6e9
    assert report.by_convention("executed").latency_s == pytest.approx(expected)


# --- A real network -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(nano) -> EnergyReport:
    model, video = nano
    return energy_report(model, video.repeat(2, 1, 1, 1, 1), rates_from="of a test")


def test_conventions_of_a_network(report: EnergyReport) -> None:
    names = [totals.convention for totals in report.totals]
    spiking = ["paper", "paper, merged", "executed", "merged", "merged, dense"]
    fewer = [f"{n}, {bits}" for bits in ("int8", "int4") for n in ("executed", "merged", "ANN")]
    assert names == [*spiking, "ANN, paper", "ANN", *fewer]
    int8 = energy_of(report.executed.operations, CostTable(precision="int8"))
    assert report.by_convention("executed, int8").energy_mj == pytest.approx(int8)
    assert all(c.below == 1 for c in report.crossovers)
    assert "cheaper from rate" in str(report)
    work = {totals.convention: totals.work for totals in report.totals}
    assert work["merged"].multiplications < work["executed"].multiplications
    assert work["merged, dense"].multiplications < work["merged"].multiplications
    assert work["merged, dense"].macs > work["merged"].macs > work["executed"].macs
    assert work["paper, merged"].macs == work["merged"].macs
    assert work["paper"].multiplications == report.layers[0].macs  # pixels
    with pytest.raises(ValueError, match="'honest' was not counted; choose one of paper"):
        report.by_convention("honest")


def energy_of(operations, cost: CostTable) -> float:
    return sum(map(cost.arithmetic_pj, operations)) * 1e-9


def test_in_a_notebook(report: EnergyReport) -> None:
    line = repr(report)
    assert line.startswith("EnergyReport(")
    assert "2 clips of T=" in line
    assert "; paper " in line
    assert "\n" not in line
    html = report._repr_html_()
    assert html.count("<rect") == len(report.totals)
    assert escape(str(report)) in html


def test_parts_sum_to_the_whole(report: EnergyReport) -> None:
    for shares in (report.stages, report.kinds):
        for name in ("paper", "executed"):
            whole = report.by_convention(name).energy_mj
            assert sum(getattr(s, f"{name}_mj") for s in shares) == pytest.approx(whole)
    assert [s.name for s in report.stages] == [
        *(f"backbone.stage{name}" for name in ("1a", "1b", "2", "3", "4")),
        "head",
    ]


def test_ann_attention_is_quadratic(report: EnergyReport) -> None:
    N = 2 * 2 * 2
    pairs = sum(8 * N * N for _ in range(3))  # heads, in three blocks
    assert report.by_convention("ANN").work.exponentials == pairs
    attention = 2 * N * N * (64 + 64 + 80)
    layers = sum(o.paper_macs for o in report.layers if o.kind != "attention")
    assert report.by_convention("ANN, paper").work.macs == layers + attention


def test_mean_of_clips(nano) -> None:
    model, video = nano
    other = video.flip(-1)
    apart = [energy_report(model, x, merge=False) for x in (video, other)]
    both = energy_report(model, torch.cat([video, other]), merge=False)
    for name in ("paper", "executed"):
        mean = sum(r.by_convention(name).energy_mj for r in apart) / 2
        assert both.by_convention(name).energy_mj == pytest.approx(mean)
    for a, b, c in zip(apart[0].neurons, apart[1].neurons, both.neurons, strict=True):
        assert c.rate == pytest.approx((a.rate + b.rate) / 2)
        assert set(c.silent) == set(a.silent) & set(b.silent)


def test_rates_are_those_of_the_network(nano, report: EnergyReport) -> None:
    model, video = nano
    with torch.no_grad(), svf.record_firing_rates(model) as rates:
        model(video)
    assert {n.module: n.rate for n in report.neurons} == pytest.approx(rates.mean)


def test_twin(nano) -> None:
    model, video = nano

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1, bias=False)

        def forward(self, video: Tensor) -> Tensor:
            return torch.relu(self.conv(video[0]))

    report = energy_report(model, video, merge=False, twin=Twin().eval())
    twin = report.by_convention("twin")
    pixels = 2 * 32 * 32
    assert twin.work.multiplications == pixels * 3 * 2
    assert twin.work.comparisons == pixels * 2


def test_text(report: EnergyReport) -> None:
    text = str(report)
    for words in ("of a test", "convention", "merged, dense", "head.fc", "saturated", "E_MAC 4.6"):
        assert words in text
    assert text.count("backbone.stage3.blocks.0.attention.0.steps.0 (attention)") == 2


def test_json_and_csv(report: EnergyReport) -> None:
    about = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [t["convention"] for t in about["totals"]] == [t.convention for t in report.totals]
    assert about["neurons"][0]["rate"] == report.neurons[0].rate
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    executed = [row for row in rows if row["form"] == "executed"]
    assert len(executed) == len(report.executed.operations)
    energy = sum(float(row["arithmetic_pj"]) for row in executed) * 1e-9
    assert energy == pytest.approx(report.by_convention("executed").energy_mj)
    assert {row["form"] for row in rows} == {"executed", "merged", "merged, dense"}


def beside_its_twin(model: svf.SpikeVideoFormer, video: Tensor) -> EnergyReport:
    """A report whose energies are in the order that they should have."""
    made_for = {"task": model.task, "num_classes": model.num_classes, "body": model.body}
    twin = svf.SpikeVideoFormer(model.config.ann_twin(), **made_for).eval()
    report = energy_report(model, video, twin=twin)
    energy = {totals.convention: totals.energy_mj for totals in report.totals}
    assert 0 < energy["paper"] < energy["executed"] < energy["ANN"] < energy["twin"]
    assert energy["merged"] < energy["executed"]
    (head,) = (share for share in report.stages if share.name == "head")
    assert 0 < head.paper_mj < energy["paper"]
    return report


def test_segmentation(segmenting) -> None:
    report = beside_its_twin(*segmenting)
    assert "head.smooth4.conv" in str(report)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["clip"] == [2, 3, 32, 32]
    assert report.to_csv().count("upsample_bilinear2d") == 3 * 4  # in four forms


@pytest.mark.parametrize("readout", ["spike", "membrane"])
def test_pose(posing, readout) -> None:
    beside_its_twin(*posing(readout))


def test_video_is_checked(nano) -> None:
    model, video = nano
    with pytest.raises(ValueError, match="NaN"):
        energy_report(model, video * float("nan"))
    with pytest.raises(ValueError, match="training mode"):
        energy_report(svf.create_model("svf_nano"), video)


def test_folded_model_is_counted_as_it_is(nano) -> None:
    model, video = nano
    report = energy_report(svf.fold_for_inference(model), video)
    assert list(report.forms) == ["executed"]
