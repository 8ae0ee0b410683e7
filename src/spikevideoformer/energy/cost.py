"""What an operation costs: tables of energy, with their sources, and throughputs.

The default is the table that this field uses: 45 nm, from Horowitz's keynote. Its figures are for
the arithmetic alone: no control, no data movement, no clock. Memory is priced apart, and only
where it is asked for.
"""

from dataclasses import dataclass
from typing import Literal

from spikevideoformer.energy.record import LAYERS, OperationCount
from spikevideoformer.settings import Stored, check_types

Precision = Literal["float32", "float16", "int8", "int8_sum16", "int4"]
Store = Literal["sram_8kb", "sram_32kb", "sram_1mb", "dram"]
LARGEST_PJ = 1e9  # of one operation: beyond it a typing error


@dataclass(frozen=True, kw_only=True)
class CostTable(Stored):
    """Energies in pJ, and the choices that decide which of them apply.

    The defaults are Horowitz's figures for 45 nm at 0.9 V.

    Attributes:
        name: of the table.
        source: where the figures come from.
        precision: of the arithmetic. ``int8`` has 8-bit weights and activations in the layers'
            multiplications, and 32-bit integers for sums, membranes and whatever is done element
            by element; ``int8_sum16`` adds up 16 bit; ``int4`` has 4-bit weights and activations
            in the layers, and adds up 16 bit.
        weights_from: where each weight is read from, once a call of its layer.
        activations_from: where activations and membranes are read from and written to.
        add_int8_pj: integer addition of 8 bit; also the price of a shift, which adds to an
            exponent of 8 bit (and is wiring for integers).
        add_int16_pj: of 16 bit.
        add_int32_pj: of 32 bit.
        add_float16_pj: floating-point addition of 16 bit.
        add_float32_pj: of 32 bit; alone, the E_AC of papers.
        mul_int8_pj: integer multiplication of 8 bit.
        mul_int32_pj: of 32 bit.
        mul_int4_pj: of 4 bit. Not in the source: that of 8 bit by the product of the widths, which
            is how the cells of an array multiplier are counted.
        mul_float16_pj: floating-point multiplication of 16 bit.
        mul_float32_pj: of 32 bit; with the addition, the E_MAC of papers.
        exponential_in_multiplications: price of an exponential or root. The sources have none; 1
            is the least that it can be, so it favours networks with softmax.
        division_in_multiplications: price of a division; likewise.
        sram_8kb_pj: access of 64 bit to a memory of 8 KB.
        sram_32kb_pj: to one of 32 KB.
        sram_1mb_pj: to one of 1 MB.
        dram_pj: of 64 bit to DRAM; the lower end of the source's 1300 to 2600.

    Raises:
        ValueError: an unknown choice, or an energy that is no number of at least 0.

    Source: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
        pages 10-14. Shifts, comparisons, exponentials and divisions are not in it: comparisons
        are priced as additions of their width, the others as said above.
    """

    _what = "cost"

    name: str = "45 nm"
    source: str = "Horowitz, ISSCC 2014"
    precision: Precision = "float32"
    weights_from: Store = "dram"
    activations_from: Store = "sram_1mb"
    add_int8_pj: float = 0.03
    add_int16_pj: float = 0.05
    add_int32_pj: float = 0.1
    add_float16_pj: float = 0.4
    add_float32_pj: float = 0.9
    mul_int8_pj: float = 0.2
    mul_int32_pj: float = 3.1
    mul_int4_pj: float = 0.05
    mul_float16_pj: float = 1.1
    mul_float32_pj: float = 3.7
    exponential_in_multiplications: float = 1.0
    division_in_multiplications: float = 1.0
    sram_8kb_pj: float = 10.0
    sram_32kb_pj: float = 20.0
    sram_1mb_pj: float = 100.0
    dram_pj: float = 1300.0

    def __post_init__(self) -> None:
        check_types(self)
        for name, value in vars(self).items():
            if isinstance(value, float) and not 0 <= value <= LARGEST_PJ:
                raise ValueError(f"{name} is {value!r}; expected a number from 0 to {LARGEST_PJ:g}")

    @property
    def ac_pj(self) -> float:
        """An accumulation, E_AC."""
        return {
            "float32": self.add_float32_pj,
            "float16": self.add_float16_pj,
            "int8": self.add_int32_pj,
            "int8_sum16": self.add_int16_pj,
            "int4": self.add_int16_pj,
        }[self.precision]

    @property
    def mac_pj(self) -> float:
        """A multiplication and the accumulation of its result, E_MAC."""
        return self._layer_mul_pj + self.ac_pj

    @property
    def _layer_mul_pj(self) -> float:
        if self.precision == "int4":
            return self.mul_int4_pj
        return self.mul_int8_pj if self.precision.startswith("int8") else self.mul_pj

    @property
    def mul_pj(self) -> float:
        """A multiplication of membranes and sums, element by element."""
        return {
            "float32": self.mul_float32_pj,
            "float16": self.mul_float16_pj,
        }.get(self.precision, self.mul_int32_pj)

    @property
    def weight_bits(self) -> int:
        """Of one weight in memory."""
        return {"float32": 32, "float16": 16, "int4": 4}.get(self.precision, 8)

    def arithmetic_pj(self, operation: OperationCount) -> float:
        """All arithmetic of an operation."""
        mul = self._layer_mul_pj if operation.kind in LAYERS else self.mul_pj
        return (
            mul * operation.multiplications
            + self.ac_pj * (operation.additions + operation.comparisons)
            + self.add_int8_pj * operation.shifts
            + self.mul_pj * self.exponential_in_multiplications * operation.exponentials
            + self.mul_pj * self.division_in_multiplications * operation.divisions
        )

    def paper_pj(self, operation: OperationCount) -> float:
        """What papers count: layers only, an E_AC for each MAC times the firing rate.

        Layers with no spikes in front cost an E_MAC for each MAC. Where the input is real but
        spikes stand in front of it (inside RepConv and SepConv), their rate is taken.
        """
        if operation.kind not in LAYERS:
            return 0.0
        if operation.paper_rate is None:
            return self.mac_pj * operation.paper_macs
        return self.ac_pj * operation.paper_macs * operation.paper_rate

    def memory_pj(self, operation: OperationCount) -> float:
        """All reads and writes, at the energy for each 64 bit of the memories chosen."""
        weights = operation.weights_read * self.weight_bits
        others = operation.bits_in + operation.bits_out + operation.membrane_bits
        return (
            weights * self._store_pj(self.weights_from)
            + others * self._store_pj(self.activations_from)
        ) / 64

    def _store_pj(self, store: Store) -> float:
        energy: float = getattr(self, f"{store}_pj")
        return energy


HOROWITZ_45NM = CostTable()


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """How much a device computes in a second, for an estimate of latency.

    Attributes:
        name: of the device.
        flop_per_s: floating-point operations, two for each multiply-accumulate.
        synaptic_operations_per_s: accumulations of spikes.

    Source: Zou et al., ICML 2025, for a Xilinx ZCU104: 691.2 GFLOP/s for an ANN (its 1728 DSP
        slices at 200 MHz, two operations each), 5529.6 G synaptic operations/s for an SNN.
    """

    name: str = "ZCU104"
    flop_per_s: float = 691.2e9
    synaptic_operations_per_s: float = 5529.6e9

    def latency_s(self, macs: float, acs: float) -> float:
        """Time for multiply-accumulates and accumulations one after the other, at full use."""
        return 2 * macs / self.flop_per_s + acs / self.synaptic_operations_per_s


ZCU104 = Throughput()
