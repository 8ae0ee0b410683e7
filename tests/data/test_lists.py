"""Paths as lists have them, and what is a clip of pictures."""

import unicodedata

import pytest
from PIL import Image

from spikevideoformer.data.lists import is_image_sequence, listed_path


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["café/été.mp4", "café\\été.mp4", "plain\\a b.mp4"])
def test_lists_from_other_systems_name_the_file_that_is_here(tmp_path, form, written):
    here = tmp_path / unicodedata.normalize(form, written.replace("\\", "/"))
    here.parent.mkdir()
    here.touch()
    for listed in ("NFC", "NFD"):
        found = listed_path(tmp_path, unicodedata.normalize(listed, written))
        assert found.samefile(here)


def test_a_name_that_is_there_or_is_not_stays_as_it_is(tmp_path):
    odd = tmp_path / "a\\b.mp4"  # a name like any other where / separates
    odd.touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.mp4").touch()
    assert listed_path(tmp_path, "a\\b.mp4") == odd
    assert listed_path(tmp_path, "x\\é.mp4") == tmp_path / "x\\é.mp4"
    assert listed_path(tmp_path, str(odd)) == odd


def test_a_thumbnail_beside_videos_is_no_clip_of_pictures(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "thumb.jpg")
    assert is_image_sequence(tmp_path)
    (tmp_path / ".a.mp4").touch()
    assert is_image_sequence(tmp_path)
    (tmp_path / "a.MP4").touch()
    assert not is_image_sequence(tmp_path)
