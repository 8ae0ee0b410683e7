"""Cost tables: the published figures, files, and what each choice changes."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from spikevideoformer.energy.cost import HOROWITZ_45NM, ZCU104, CostTable
from spikevideoformer.energy.record import OperationCount

EXAMPLE = Path(__file__).resolve().parents[2] / "configs" / "energy" / "45nm.yaml"

CONV = OperationCount(
    module="conv", operation="convolution", kind="conv", shapes=(), operand="real"
)


def test_the_energies_of_papers() -> None:
    assert HOROWITZ_45NM.mac_pj == pytest.approx(4.6)
    assert HOROWITZ_45NM.ac_pj == 0.9


def test_example_file_is_the_default_and_complete() -> None:
    assert CostTable.from_yaml(EXAMPLE) == HOROWITZ_45NM
    text = EXAMPLE.read_text()
    assert all(f"\n{f.name}:" in text for f in fields(CostTable))


@pytest.mark.parametrize(
    ("precision", "mac", "ac", "weights"),
    [
        ("float32", 3.7 + 0.9, 0.9, 32),
        ("float16", 1.1 + 0.4, 0.4, 16),
        ("int8", 0.2 + 0.1, 0.1, 8),
        ("int8_sum16", 0.2 + 0.05, 0.05, 8),
        ("int4", 0.05 + 0.05, 0.05, 4),
    ],
)
def test_precision(precision: str, mac: float, ac: float, weights: int) -> None:
    cost = CostTable(precision=precision)
    assert (cost.mac_pj, cost.ac_pj, cost.weight_bits) == (pytest.approx(mac), ac, weights)
    # 10 multiply-accumulates of a layer, and 2 multiplications element by element
    assert cost.arithmetic_pj(replace(CONV, multiplications=10, additions=10)) == pytest.approx(
        10 * mac
    )
    element = replace(CONV, kind="norm", multiplications=2)
    wide = {"float32": 3.7, "float16": 1.1}.get(precision, 3.1)
    assert cost.arithmetic_pj(element) == pytest.approx(2 * wide)


def test_arithmetic() -> None:
    work = {"comparisons": 2, "shifts": 3, "exponentials": 5, "divisions": 7}
    expected = 2 * 0.9 + 3 * 0.03 + (5 + 7) * 3.7
    assert HOROWITZ_45NM.arithmetic_pj(replace(CONV, **work)) == pytest.approx(expected)
    dear = CostTable(exponential_in_multiplications=10, division_in_multiplications=4)
    assert dear.arithmetic_pj(replace(CONV, **work)) == pytest.approx(
        2 * 0.9 + 3 * 0.03 + (5 * 10 + 7 * 4) * 3.7
    )


def test_papers_count() -> None:
    assert HOROWITZ_45NM.paper_pj(replace(CONV, macs=10)) == pytest.approx(46)  # sees pixels
    assert HOROWITZ_45NM.paper_pj(replace(CONV, macs=10, rate=0.2)) == pytest.approx(1.8)
    assert HOROWITZ_45NM.paper_pj(replace(CONV, macs=10, front_rate=0.2)) == pytest.approx(1.8)
    assert HOROWITZ_45NM.paper_pj(replace(CONV, kind="norm", multiplications=9)) == 0


def test_memory() -> None:
    moved = replace(CONV, weights_read=4, bits_in=64, bits_out=32, membrane_bits=32)
    # weights 128 bit from DRAM, 128 bit to and from SRAM of 1 MB
    assert HOROWITZ_45NM.memory_pj(moved) == pytest.approx(2 * 1300 + 2 * 100)
    near = CostTable(weights_from="sram_32kb", activations_from="sram_8kb", precision="int8")
    assert near.memory_pj(moved) == pytest.approx(0.5 * 20 + 2 * 10)


def test_latency() -> None:
    assert ZCU104.latency_s(macs=345.6e9, acs=0) == 1
    assert ZCU104.latency_s(macs=0, acs=5529.6e9) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("add_float32: 1", "unknown cost add_float32; did you mean add_float32_pj?"),
        ("add_float32_pj: -1", "add_float32_pj is -1.0; expected a number from 0 to"),
        ("add_float32_pj: x", "add_float32_pj is 'x'; expected a number"),
        ("mul_float32_pj: .nan", "mul_float32_pj is nan"),
        ("precision: float8", "precision is 'float8'; expected float32 or"),
        ("weights_from: disk", "weights_from is 'disk'; expected sram_8kb or"),
        ("name: 3", "name is 3; expected text"),
        ("- 1", "expected lines like"),
        ("a: [", "not valid YAML"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "cost.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"cost\.yaml") as caught:
        CostTable.from_yaml(path)
    assert message in str(caught.value)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        CostTable.from_yaml(tmp_path / "no.yaml")
