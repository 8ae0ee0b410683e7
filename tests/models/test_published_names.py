"""Every tensor of every kind has one published name, and comes back by it."""

import pytest
import torch

import spikevideoformer as svf
from spikevideoformer.models.published_names import published_names, renamed

SMALL = {"num_classes": 3, "heads": 4}
KINDS = {
    "svf_nano": {},
    "espike_5m": {"widths": (8, 16, 24, 32), "depths": (1, 1, 2, 1, 1)},
    "espike_83m": {"widths": (8, 12, 16), "depths": (1, 1, 2, 1), "distilled": True},
}


@pytest.mark.parametrize("head", [None, "fpn"])
@pytest.mark.parametrize("name", KINDS)
def test_names_are_there_and_back(name, head):
    task = {} if head is None else {"task": "segmentation", "mask_head": head}
    readout = {"readout": "both"} if "distilled" in KINDS[name] else {}
    options = {**SMALL, **KINDS[name], **task, **({} if head else readout)}
    if head:
        options.pop("distilled", None)
    model = svf.create_model(name, **options)
    names = published_names(model)
    assert len(set(names.values())) == len(names)
    own = model.state_dict()
    theirs = {}
    for key, value in own.items():
        module, _, leaf = key.rpartition(".")
        whole = names[module].removeprefix("backbone.")
        theirs[whole if ".layer_scale" in whole else f"{whole}.{leaf}"] = value
    assert len(theirs) == len(own)
    back = renamed(theirs, model)
    assert back.keys() == own.keys()
    assert all(back[key] is own[key] for key in own)
    odd = {"odd.weight": torch.zeros(1)}
    assert renamed(odd, model) == odd
