"""The energy of a network on real clips, by three conventions side by side.

========== =========================================================================
paper      what papers of this field count: layers only; E_MAC for the first
           convolution, E_AC x firing rate for every MAC of the others (``paper,
           merged``: of the network after merging, which has more of them)
executed   every operation of the network as it is in evaluation
merged     every operation after ``fold_for_inference``: RepConvs as dense 3x3; SepConv
           as depthwise and pointwise, or (``merged, dense``) as one 7x7
ANN, paper the same layers with E_MAC for every MAC, and softmax attention
ANN        the same without what falls on padding, and with the softmax itself
..., int8  the same operations with 8-bit weights (and activations of ordinary layers), or
..., int4  with 4-bit ones: for both sides, beside a table in float32
========== =========================================================================
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from spikevideoformer.deploy.fold import fold_for_inference
from spikevideoformer.deploy.folded import FoldedSpikeVideoFormer
from spikevideoformer.energy.cost import HOROWITZ_45NM, ZCU104, CostTable, Throughput
from spikevideoformer.energy.count import count_clips
from spikevideoformer.energy.crossover import Crossover, crossovers
from spikevideoformer.energy.rates import rate_by_operations
from spikevideoformer.energy.record import (
    LAYERS,
    WORK,
    Counts,
    NeuronActivity,
    OperationCount,
    Work,
    total,
)
from spikevideoformer.energy.twin import ann_of_same_shape
from spikevideoformer.messages import table, three_digits, with_prefix
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.neuron import record_firing_rates, silence

Form = Literal["executed", "merged", "merged, dense", "twin"]


@dataclass(frozen=True, kw_only=True)
class Totals:
    """A whole clip by one convention.

    Attributes:
        convention: see the top of the file.
        energy_mj: of the arithmetic that the convention counts.
        memory_mj: of reads and writes; None where the convention leaves them out.
        latency_s: at the full throughput of the device, arithmetic of layers only.
        work: what was counted.
    """

    convention: str
    energy_mj: float
    memory_mj: float | None
    latency_s: float
    work: Work


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of a stage or of a kind of operation.

    Attributes:
        name: of the stage or kind.
        paper_mj: by the papers' convention.
        executed_mj: arithmetic, as executed.
        memory_mj: reads and writes, as executed.
        work: as executed.
    """

    name: str
    paper_mj: float
    executed_mj: float
    memory_mj: float
    work: Work


@dataclass(frozen=True, kw_only=True)
class EnergyReport:
    """Energy and operations of one clip (the mean of those given).

    Attributes:
        model: what was counted, in a word.
        clip: T, C, H, W.
        clips: how many there were.
        rates_from: what the firing rates hold for.
        cost: the energies.
        throughput: of the device that latency is estimated for.
        forms: the operations of each form of the network.
        totals: by convention, the papers' first.
    """

    model: str
    clip: tuple[int, ...]
    clips: int
    rates_from: str
    cost: CostTable
    throughput: Throughput
    forms: dict[Form, Counts] = field(repr=False)
    totals: tuple[Totals, ...]

    @property
    def executed(self) -> Counts:
        """The network as it is."""
        return self.forms["executed"]

    @property
    def neurons(self) -> tuple[NeuronActivity, ...]:
        """Firing rates, silent and saturated channels of every layer of neurons."""
        return self.executed.neurons

    @property
    def layers(self) -> tuple[OperationCount, ...]:
        """Convolutions, linear layers and products of attention, in order of execution."""
        return tuple(o for o in self.executed.operations if o.kind in LAYERS)

    @property
    def rate(self) -> float | None:
        """Mean firing rate weighted by operations; None of an ordinary network."""
        return rate_by_operations(self.layers)

    @property
    def crossovers(self) -> tuple[Crossover, ...]:
        """At which firing rates ordinary layers in several formats would be cheaper."""
        levels = max((n.levels for n in self.neurons), default=1)
        return tuple(crossovers(self.layers, levels, self.cost))

    @property
    def stages(self) -> tuple[Share, ...]:
        """The network cut at its stages: backbone.stage1a ... head."""

        def stage(o: OperationCount) -> str:
            first, _, rest = o.module.partition(".")
            return f"{first}.{rest.partition('.')[0]}" if first == "backbone" else first

        return self._shares(stage)

    @property
    def kinds(self) -> tuple[Share, ...]:
        """The network by what operations are for."""
        return self._shares(lambda o: o.kind)

    def _shares(self, key: Callable[[OperationCount], str]) -> tuple[Share, ...]:
        groups: dict[str, list[OperationCount]] = {}
        for operation in self.executed.operations:
            groups.setdefault(key(operation), []).append(operation)
        return tuple(
            Share(
                name=name or "(between stages)",
                paper_mj=_mj(self.cost.paper_pj, group),
                executed_mj=_mj(self.cost.arithmetic_pj, group),
                memory_mj=_mj(self.cost.memory_pj, group),
                work=total(group),
            )
            for name, group in groups.items()
        )

    def by_convention(self, convention: str) -> Totals:
        """The totals of one convention.

        Raises:
            ValueError: it was not counted.
        """
        for totals in self.totals:
            if totals.convention == convention:
                return totals
        counted = ", ".join(totals.convention for totals in self.totals)
        raise ValueError(f"convention {convention!r} was not counted; choose one of {counted}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "model": self.model,
            "clip": list(self.clip),
            "clips": self.clips,
            "rates_from": self.rates_from,
            "cost": self.cost.to_dict(),
            "throughput": asdict(self.throughput),
            "totals": [asdict(totals) for totals in self.totals],
            "stages": [asdict(share) for share in self.stages],
            "kinds": [asdict(share) for share in self.kinds],
            "layers": [
                asdict(o)
                | {
                    "paper_mj": self.cost.paper_pj(o) * 1e-9,
                    "executed_mj": self.cost.arithmetic_pj(o) * 1e-9,
                    "memory_mj": self.cost.memory_pj(o) * 1e-9,
                }
                for o in self.layers
            ],
            "rate": self.rate,
            "neurons": [asdict(n) | {"rate": n.rate} for n in self.neurons],
            "crossovers": [asdict(c) for c in self.crossovers],
        }

    def to_csv(self) -> str:
        """Every operation of every form, a line each."""
        columns = [f.name for f in fields(OperationCount) if f.name not in WORK] + list(WORK)
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["form", *columns, "paper_pj", "arithmetic_pj", "memory_pj"])
        for form, counts in self.forms.items():
            for o in counts.operations:
                shapes = " ".join("x".join(map(str, shape)) for shape in o.shapes)
                values = [shapes if name == "shapes" else getattr(o, name) for name in columns]
                cost = self.cost.paper_pj(o), self.cost.arithmetic_pj(o), self.cost.memory_pj(o)
                writer.writerow([form, *values, *cost])
        return out.getvalue()

    def __repr__(self) -> str:
        T, C, H, W = self.clip
        energies = ", ".join(
            f"{t.convention} {three_digits(t.energy_mj)} mJ" for t in self.totals[:2]
        )
        return (
            f"EnergyReport({self.model}, {self.clips} clips of T={T} frames of {C}x{H}x{W}; "
            f"{energies}; print it for the tables)"
        )

    def _repr_html_(self) -> str:
        from spikevideoformer import notebook

        rows = [(total.convention, total.energy_mj) for total in self.totals]
        drawing = notebook.bars(
            rows, show=lambda mj: f"{three_digits(mj)} mJ", caption="energy of a clip"
        )
        return notebook.card(repr(self), drawing, notebook.text(str(self)))

    def __str__(self) -> str:
        return "\n\n".join(self._sections())

    def _sections(self) -> Iterable[str]:
        T, C, H, W = self.clip
        weighted = "" if self.rate is None else f"; mean, by operations: {self.rate:.4f}"
        yield (
            f"{self.model}, clip of T={T} frames of {C}x{H}x{W}, mean of {self.clips} clips; "
            f"{self.cost.name} ({self.cost.source}), {self.cost.precision}: "
            f"E_MAC {self.cost.mac_pj:.3g} pJ, E_AC {self.cost.ac_pj:.3g} pJ\n"
            f"firing rates: {self.rates_from}{weighted}"
        )
        yield (
            _table(
                f"layer,input,rate,{_WORK},paper mJ,executed mJ",
                (
                    [
                        f"{o.module} ({o.kind})" if o.kind == "attention" else o.module,
                        o.operand + (" *" if o.rate is None and o.paper_rate is not None else ""),
                        "-" if o.paper_rate is None else f"{o.paper_rate:.4f}",
                        *_work(o),
                        three_digits(self.cost.paper_pj(o) * 1e-9),
                        three_digits(self.cost.arithmetic_pj(o) * 1e-9),
                    ]
                    for o in self.layers
                ),
            )
            + "\n* real values; the rate is that of the last spikes in front of them"
        )
        for title, shares in (("stage", self.stages), ("kind", self.kinds)):
            yield _table(
                f"{title},{_WORK},paper mJ,executed mJ,memory mJ",
                (
                    [s.name, *_work(s.work)]
                    + [three_digits(v) for v in (s.paper_mj, s.executed_mj, s.memory_mj)]
                    for s in shares
                ),
            )
        yield self.neuron_table()
        if self.crossovers:
            yield self.crossover_table()
        yield self.totals_table()

    def crossover_table(self) -> str:
        """Layers of spikes against ordinary ones, in several formats."""
        return _table(
            "ordinary layer in,E_MAC pJ,E_AC pJ,cheaper from rate,below,ratio",
            (
                [
                    c.rival,
                    *(f"{v:.3g}" for v in (c.mac_pj, c.ac_pj, c.rate)),
                    f"{c.below:.1%}",
                    f"{c.ratio:.3g}",
                ]
                for c in self.crossovers
            ),
        ) + (
            "\nbelow: share of the work of layers of spikes at a lower rate; ratio: energy of "
            "these\nlayers, ordinary over spiking, arithmetic alone, sums in the same format"
        )

    def neuron_table(self) -> str:
        """Firing rate of each layer of neurons, over time, with channels that tell nothing."""
        return _table(
            "neurons,rate,first..last frame,channels,silent,saturated",
            (
                [
                    n.module,
                    f"{n.rate:.4f}",
                    f"{n.rate_per_frame[0]:.3f}..{n.rate_per_frame[-1]:.3f}",
                    *map(str, (n.channels, len(n.silent), len(n.saturated))),
                ]
                for n in self.neurons
            ),
        )

    def totals_table(self) -> str:
        """The conventions side by side."""
        names = "multiplications additions shifts comparisons exponentials neuron_updates".split()
        head = ["convention", "energy mJ", "memory mJ", "MACs", *names]
        return table(
            [name.replace("_", " ") for name in head] + [f"ms on {self.throughput.name}"],
            [
                [
                    t.convention,
                    three_digits(t.energy_mj),
                    "-" if t.memory_mj is None else three_digits(t.memory_mj),
                    *(with_prefix(getattr(t.work, name)) for name in ("macs", *names)),
                    three_digits(1e3 * t.latency_s),
                ]
                for t in self.totals
            ],
            numbers=True,
        )


_WORK = "MACs,multiplied,added"


def _work(done: OperationCount | Work) -> list[str]:
    return [with_prefix(v) for v in (done.macs, done.multiplications, done.additions)]


def _table(head: str, rows: Iterable[Sequence[str]]) -> str:
    return table(head.split(","), list(rows), numbers=True)


def energy_report(
    model: nn.Module,
    video: Tensor,
    *,
    cost: CostTable = HOROWITZ_45NM,
    throughput: Throughput = ZCU104,
    merge: bool = True,
    twin: nn.Module | None = None,
    rates_from: str = "measured on these clips",
    tell: Callable[[str], None] = lambda _line: None,
) -> EnergyReport:
    """Count what a network does on clips, and what that costs.

    Args:
        model: a network for ``[B, T, C, H, W]``, in evaluation mode; a SpikeVideoFormer, or any
            module of operations that the counter knows.
        video: normalised clips ``[B, T, C, H, W]``; results are the mean over B.
        cost: energies of operations and memory.
        throughput: of the device that latency is estimated for.
        merge: also fold the network (where it is a SpikeVideoFormer of spiking neurons, not
            folded yet) and count that, which takes three times as long.
        twin: an ANN to compare with, counted on the same clips. Without one, the comparison is
            with an ANN that would have the same layers.
        rates_from: what the report says of the firing rates.
        tell: called with a line on each form of the network that is counted.

    Raises:
        ValueError: a network in training mode, an operation that is not known, or a video that
            the network refuses; or a network that is silent on it, whose energy is no figure.
    """
    if video.ndim != 5:
        raise ValueError(f"got shape {tuple(video.shape)}; expected clips [B, T, C, H, W]")
    ordinary = isinstance(model, SpikeVideoFormer) and not model.config.neuron.spiking
    networks: dict[Form, Callable[[], nn.Module]] = {"executed": lambda: model}
    if merge and _can_be_folded(model):
        spiking = cast(SpikeVideoFormer, model)
        networks["merged"] = lambda: fold_for_inference(spiking)
        networks["merged, dense"] = lambda: fold_for_inference(spiking, sepconv="dense")
    if twin is not None:
        networks["twin"] = lambda: twin
    forms: dict[Form, Counts] = {}
    for i, (form, network) in enumerate(networks.items(), 1):
        tell(f"counting operations {i}/{len(networks)}: {form}")
        forms[form] = count_clips(network(), video)
        if form == "executed":
            _refuse_silence(model, video)
    totals = [] if ordinary else [_paper(forms["executed"].operations, cost, throughput)]
    if "merged" in forms:
        totals.append(_paper(forms["merged"].operations, cost, throughput, "paper, merged"))
    totals += [_all(form, counts.operations, cost, throughput) for form, counts in forms.items()]
    if not ordinary:
        ann = ann_of_same_shape(model, forms["executed"])
        totals.append(_paper(ann, cost, throughput, "ANN, paper"))
        totals.append(_all("ANN", ann, cost, throughput, memory=False))
    if cost.precision == "float32":
        for precision in ("int8", "int4"):
            fewer = replace(cost, precision=precision)
            for form, counts in forms.items():
                if form != "merged, dense":
                    name, operations = f"{form}, {precision}", counts.operations
                    totals.append(_all(name, operations, fewer, throughput, memory=False))
            if not ordinary:
                totals.append(_all(f"ANN, {precision}", ann, fewer, throughput, memory=False))
    B, T, C, H, W = video.shape
    return EnergyReport(
        model=type(model).__name__,
        clip=(T, C, H, W),
        clips=B,
        rates_from=rates_from,
        cost=cost,
        throughput=throughput,
        forms=forms,
        totals=tuple(totals),
    )


@torch.no_grad()
def _refuse_silence(model: nn.Module, video: Tensor) -> None:
    with record_firing_rates(model) as rates:
        model(video[:1])
    if (line := silence(rates.overall)) is not None:
        raise ValueError(
            f"{line}; an energy would say nothing (or give videos like those it was trained on)"
        )


def _can_be_folded(model: nn.Module) -> bool:
    return (
        isinstance(model, SpikeVideoFormer)
        and not isinstance(model, FoldedSpikeVideoFormer)
        and model.config.neuron.kernels
    )


def _mj(
    energy_pj: Callable[[OperationCount], float], operations: Iterable[OperationCount]
) -> float:
    return math.fsum(map(energy_pj, operations)) * 1e-9


def _paper(
    operations: Iterable[OperationCount],
    cost: CostTable,
    throughput: Throughput,
    convention: str = "paper",
) -> Totals:
    layers = [o for o in operations if o.kind in LAYERS]
    real = math.fsum(o.paper_macs for o in layers if o.paper_rate is None)
    acs = math.fsum(o.paper_macs * o.paper_rate for o in layers if o.paper_rate is not None)
    macs = math.fsum(o.paper_macs for o in layers)
    return Totals(
        convention=convention,
        energy_mj=_mj(cost.paper_pj, layers),
        memory_mj=None,
        latency_s=throughput.latency_s(real, acs),
        work=Work(macs=macs, acs=acs, multiplications=real, additions=real + acs),
    )


def _all(
    convention: str,
    operations: Sequence[OperationCount],
    cost: CostTable,
    throughput: Throughput,
    *,
    memory: bool = True,
) -> Totals:
    work = total(operations)
    real = math.fsum(o.multiplications for o in operations if o.kind in LAYERS)
    return Totals(
        convention=convention,
        energy_mj=_mj(cost.arithmetic_pj, operations),
        memory_mj=_mj(cost.memory_pj, operations) if memory else None,
        latency_s=throughput.latency_s(real, work.acs),
        work=work,
    )
