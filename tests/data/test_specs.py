"""The settings of data stand apart from what needs torch, and are the same objects everywhere."""

import subprocess
import sys

import pytest

from spikevideoformer.data import (
    check,
    clip,
    event_camera,
    events,
    pose_sequence,
    render,
    segmentation,
    sequence,
    specs,
    transforms,
)

# Each is tested beside what uses it.
HOMES = {
    "Decode": check,
    "ClipSpec": clip,
    "EventCamera": event_camera,
    "EventChannels": events,
    "PoseSpec": pose_sequence,
    "RenderSpec": render,
    "MaskAugmentation": segmentation,
    "SegmentationSpec": sequence,
    "Augmentation": transforms,
}


@pytest.mark.parametrize("name", HOMES)
def test_settings_are_found_beside_what_uses_them(name: str) -> None:
    assert getattr(HOMES[name], name) is getattr(specs, name)


def test_a_wrong_value_is_refused_without_torch() -> None:
    code = """
import sys
import spikevideoformer.data.specs as specs
for make in (
    lambda: specs.ClipSpec(frames=0, size=16),
    lambda: specs.PoseSpec(frames=1, size=17),
    lambda: specs.SegmentationSpec(frames=1, short_side=None, crop=(15, 16)),
    lambda: specs.RenderSpec(size=20),
):
    try:
        make()
    except ValueError:
        continue
    raise AssertionError
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
