"""Amounts add up, and a record says what papers make of it."""

from dataclasses import replace

from spikevideoformer.energy.record import WORK, NeuronActivity, OperationCount, Work, total

CONV = OperationCount(
    module="conv",
    operation="convolution",
    kind="conv",
    shapes=((1, 2),),
    operand="spikes",
    rate=0.25,
    front_rate=0.25,
    macs=100,
    padding_macs=36,
)


def test_total_adds_every_amount() -> None:
    works = [Work(**dict.fromkeys(WORK, 1.5)), Work(**dict.fromkeys(WORK, 2))]
    assert all(getattr(total(works), name) == 3.5 for name in WORK)
    assert total([]) == Work()


def test_papers_count_padding_but_no_border() -> None:
    assert CONV.paper_macs == 100
    assert replace(CONV, pointwise_padded=True).paper_macs == 64


def test_papers_take_the_rate_in_front() -> None:
    assert CONV.paper_rate == 0.25
    assert replace(CONV, operand="real", rate=None, front_rate=0.5).paper_rate == 0.5
    assert replace(CONV, operand="real", rate=None, front_rate=None).paper_rate is None


def test_rate_is_the_mean_over_frames() -> None:
    activity = NeuronActivity(
        module="n", levels=1, rate_per_frame=(0.0, 0.5), channels=1, silent=(), saturated=()
    )
    assert activity.rate == 0.25
