"""What is read of a published file; `test_published` has its forms and refusals."""

import torch

from spikevideoformer.models.published_file import read_published


def test_tensors_lose_the_prefixes_of_wrappers_and_the_data_set_is_kept(tmp_path):
    state = {"module.backbone.a.weight": torch.ones(2), "module.neck.b": torch.zeros(1)}
    about = {"classes": ("road", "sky")}
    content = {"meta": {"dataset_meta": about, "cfg": "text"}, "state_dict": state}
    torch.save(content, tmp_path / "file.pth")
    file = read_published(tmp_path / "file.pth")
    assert file.state.keys() == {"a.weight", "neck.b"}
    assert file.about == about
    for meta in (None, 3, {}, {"dataset_meta": [1]}):
        torch.save({"meta": meta, "model": state}, tmp_path / "file.pth")
        assert read_published(tmp_path / "file.pth").about == {}
