"""Class scores from several looks at a video, against plain loops over them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spikevideoformer.models.spikevideoformer import create_model
from spikevideoformer.tasks.segmentation.tiling import class_scores, most_likely, upsampled_classes

WEIGHT = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))


def network(video: Tensor) -> Tensor:
    """Logits of four classes that know their neighbourhood, so that borders of windows matter."""
    assert video.shape[0] == 1
    return F.conv2d(video[0], WEIGHT, padding=1)[None]


@pytest.fixture
def video() -> Tensor:
    return torch.randn(2, 3, 13, 20)


def probabilities(video: Tensor) -> Tensor:
    return network(video[None])[0].softmax(1)


def test_one_look_is_the_softmax_of_the_logits() -> None:
    model = create_model("svf_nano", task="segmentation", num_classes=3, pad_input=True).eval()
    video = torch.randn(2, 3, 20, 35)
    with torch.no_grad():
        expected = model(video[None])[0].softmax(1)
        assert torch.equal(class_scores(model, video), expected)
    assert expected.shape == (2, 3, 20, 35)


@pytest.mark.parametrize(
    ("window", "tops", "lefts"),
    [
        ((6, 9), [0, 4, 7], [0, 6, 11]),
        ((12, 12), [0, 1], [0, 8]),
        ((13, 20), [0], [0]),
        ((13, 3), [0], [0, 2, 4, 6, 8, 10, 12, 14, 16, 17]),
        ((1, 1), list(range(13)), list(range(20))),
    ],
)
def test_windows_overlap_and_end_with_the_picture(
    video: Tensor, window: tuple[int, int], tops: list[int], lefts: list[int]
) -> None:
    h, w = window
    sums, times = torch.zeros(2, 4, 13, 20), torch.zeros(13, 20)
    for top in tops:
        for left in lefts:
            part = probabilities(video[:, :, top : top + h, left : left + w])
            sums[:, :, top : top + h, left : left + w] += part
            times[top : top + h, left : left + w] += 1
    assert times.min() >= 1
    torch.testing.assert_close(class_scores(network, video, window=window), sums / times)


@pytest.mark.parametrize("window", [(16, 16), (16, 32), (8, 24)])
def test_small_pictures_are_filled_up(video: Tensor, window: tuple[int, int]) -> None:
    shapes = []

    def watched(clip: Tensor) -> Tensor:
        shapes.append(tuple(clip.shape[3:]))
        return network(clip)

    scores = class_scores(watched, video, window=window)
    assert set(shapes) == {window}
    height, width = max(13, window[0]), max(20, window[1])
    padded = torch.zeros(2, 3, height, width)
    padded[:, :, :13, :20] = video
    expected = class_scores(network, padded, window=window)[:, :, :13, :20]
    torch.testing.assert_close(scores, expected)


def test_scales_and_mirrored_pictures_are_averaged(video: Tensor) -> None:
    looks = []
    for size in ((13, 20), (6, 10), (20, 30)):  # 0.5 and 1.5 times the size, rounded to even
        scaled = F.interpolate(video, size, mode="bilinear", antialias=True)
        for flipped in (False, True):
            scores = probabilities(scaled.flip(3) if flipped else scaled)
            scores = scores.flip(3) if flipped else scores
            looks.append(F.interpolate(scores, (13, 20), mode="bilinear", align_corners=False))
    got = class_scores(network, video, scales=(1.0, 0.5, 1.5), flip=True)
    torch.testing.assert_close(got, torch.stack(looks).mean(0))
    torch.testing.assert_close(got.sum(1), torch.ones(2, 13, 20))


def test_windows_of_every_scale_have_one_size(video: Tensor) -> None:
    shapes = set()

    def watched(clip: Tensor) -> Tensor:
        shapes.add(tuple(clip.shape))
        return network(clip)

    scores = class_scores(watched, video, window=(8, 8), scales=(0.5, 1.0, 2.0), flip=True)
    assert shapes == {(1, 2, 3, 8, 8)}
    assert scores.shape == (2, 4, 13, 20)


def test_scores_are_float32_for_logits_in_half_precision(video: Tensor) -> None:
    scores = class_scores(lambda clip: network(clip).bfloat16(), video, window=(8, 8))
    assert scores.dtype == torch.float32


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (float("nan"),), (float("inf"),)])
def test_wrong_scales(video: Tensor, scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="numbers above 0"):
        class_scores(network, video, scales=scales)


def test_wrong_window(video: Tensor) -> None:
    with pytest.raises(ValueError, match=r"window is \(0, 4\)"):
        class_scores(network, video, window=(0, 4))


def test_classes_at_the_size_of_the_picture() -> None:
    scores = torch.zeros(256, 2, 4)
    scores[7, :, :2] = 1.0
    scores[255, :, 2:] = 1.0
    same = upsampled_classes(scores, (2, 4))
    assert same.dtype == torch.uint8
    assert same.tolist() == [[7, 7, 255, 255]] * 2
    large = upsampled_classes(scores, (6, 12))
    assert large.tolist() == [[7] * 6 + [255] * 6] * 6


def test_more_classes_than_a_byte_holds() -> None:
    with pytest.raises(ValueError, match="257 classes"):
        upsampled_classes(torch.zeros(257, 2, 2), (4, 4))


@pytest.mark.parametrize("dim", [0, 2])
def test_of_equal_scores_the_first_class_is_taken(dim) -> None:
    scores = torch.randint(0, 3, (5, 6, 7), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(most_likely(scores, dim), scores.argmax(dim))
