"""`ClipSpec` is checked, survives JSON, and clips become batches."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from spikevideoformer.video.clip import LabelledClip, collate_clips
from spikevideoformer.video.spec import ClipSpec


def test_spec_survives_json() -> None:
    for spec in (
        ClipSpec(frames=8, size=64),
        ClipSpec(frames=4, size=224, frame_rate_hz=12.5, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)),
    ):
        again = ClipSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert again == spec
        assert hash(again) == hash(spec)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frames": 0, "size": 32}, "frames must be a whole number of at least 1, got 0"),
        ({"frames": 8, "size": -1}, "size must be a whole number"),
        ({"frames": 8, "size": 32, "frame_rate_hz": 0.0}, "frame_rate_hz must be above 0"),
        ({"frames": 8, "size": 32, "std": (1.0, 1.0, 0.0)}, "std must be three numbers from 0.00"),
        ({"frames": 8, "size": 32, "mean": (1.0, float("nan"), 0.0)}, "mean must be three numbers"),
        ({"frames": 8}, "size is missing"),
        ({"frames": 8, "size": 32, "T": 4}, "unknown clip setting T; known: frames, size"),
    ],
)
def test_wrong_spec_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipSpec.from_dict(values)


def item(index: int, size: int = 4) -> LabelledClip:
    video = torch.full((2, 3, size, size), float(index))
    return LabelledClip(video=video, label=index % 2, index=index, path=Path(f"{index}.mp4"))


def test_items_become_a_batch() -> None:
    batch = collate_clips([item(5), item(2)])
    assert batch.video.shape == (2, 2, 3, 4, 4)
    assert batch.video[:, 0, 0, 0, 0].tolist() == [5.0, 2.0]
    assert batch.labels.tolist() == [1, 0]
    assert batch.indices.tolist() == [5, 2]
    assert batch.paths == (Path("5.mp4"), Path("2.mp4"))
    assert len(batch.to("cpu")) == 2
    assert "B=2, T=2, C=3, H=4, W=4" in repr(batch)
    with pytest.raises(ValueError, match=r"5\.mp4 is \[2, 3, 4, 4\], 2\.mp4 is \[2, 3, 8, 8\]"):
        collate_clips([item(5), item(2, size=8)])
    with pytest.raises(ValueError, match="at least one clip"):
        collate_clips([])
