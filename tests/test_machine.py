"""The machine in words."""

from spikevideoformer.machine import machine, processor


def test_the_cpu_has_a_name_and_cores() -> None:
    assert processor()
    assert machine("cpu").startswith(f"{processor()}, ")
    assert machine("cpu").endswith(("core", "cores"))
