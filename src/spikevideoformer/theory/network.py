"""The same question asked of a network: do its q and k keep the order of what made them fire?

A q and a k neuron receive currents, real values, and fire spikes. The proposition speaks of signs
of random Gaussian projections, which these are not: weights are trained, a neuron fires only above
a threshold, and its membrane remembers earlier frames. So this is a measurement, and no instance of
the proposition: keys are put in order by the cosine of their current with that of a query, and by
Hamming similarity and dot product of the spikes.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikevideoformer.data.transforms import eval_transform
from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
from spikevideoformer.nn.attention import Axes, SpikeAttention, to_tokens
from spikevideoformer.nn.conv import per_frame
from spikevideoformer.theory.ranks import rank_correlation
from spikevideoformer.video.frames import DecodeLimits, VideoError, read_clip
from spikevideoformer.video.inputs import VideoPath, expand_inputs
from spikevideoformer.video.spec import ClipSpec

SEQUENCES, QUERIES, KEYS = 4, 32, 128  # at most, of a layer and clip; queries and keys of each head
# Tokens that show the same have currents that differ by rounding: that is no order.
COSINE_DECIMALS = 5
LEAST_SPREAD = 2e-5  # of the cosines of a query's keys; rounding alone may make them differ by 1e-5


@dataclass(frozen=True, kw_only=True)
class LayerOrder:
    """How well the spikes of one attention module keep the order of cosines of its currents.

    Attributes:
        layer: name of the module.
        axes: which tokens attend to each other: space_time, space or time.
        width: d of a head.
        levels: D of the neurons.
        queries: that were measured, over heads and clips; those whose keys all have one cosine are
            left out.
        q_firing_rate: spikes per neuron and frame (up to D for Integer-LIF).
        k_firing_rate: the same of the keys.
        hamming: rank correlation of the Hamming similarity with the cosine, over the keys of a
            query, mean over queries. A query whose keys all score the same counts as 0.
        dot: the same of the dot product.
        hamming_undecided: share of queries whose keys all have one Hamming similarity.
        dot_undecided: share of queries whose keys all have one dot product: above all those that
            fire no spike.
        hamming_decided: as ``hamming``, over the queries for which neither score is undecided; None
            without any.
        dot_decided: as ``dot``, over the same queries.
    """

    layer: str
    axes: Axes
    width: int
    levels: int
    queries: int
    q_firing_rate: float
    k_firing_rate: float
    hamming: float
    dot: float
    hamming_undecided: float
    dot_undecided: float
    hamming_decided: float | None
    dot_decided: float | None


@dataclass(frozen=True, kw_only=True)
class NetworkOrder:
    """All attention modules of a network.

    Attributes:
        model: where it came from.
        attention: hamming or dot, what it was built with.
        videos: that were measured.
        layers: in order of execution.
    """

    model: str
    attention: str
    videos: tuple[str, ...]
    layers: tuple[LayerOrder, ...]


def measure_files(
    folder: VideoPath,
    inputs: Sequence[VideoPath],
    *,
    seed: int = 0,
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    failed: Callable[[VideoError], None],
) -> NetworkOrder:
    """Run a trained network on one clip of each video, and measure its attention modules.

    Args:
        folder: model folder, or a hub id (owner/name).
        inputs: videos, folders of videos and globs, as `svf predict` takes them.
        seed: decides which tokens are compared.
        limits: against files that unpack to far more than they seem.
        failed: told of each input that could not be used, where others could.

    Raises:
        VideoError: no input could be used.
        ValueError: no usable model, or one that does not say how clips are made.
    """
    model = SpikeVideoFormer.from_pretrained(folder)
    if not model.config.neuron.spiking:
        raise ValueError(f"{folder} is an ordinary network without spikes; give a spiking one")
    if model.task != "classification":
        raise ValueError(f"{folder} is made for {model.task}; give a model for classification")
    if model.clip is None:
        raise ValueError(
            f"{folder} does not say how clips are made; train it with svf train, or give "
            "save_pretrained a clip"
        )
    spec = ClipSpec.from_dict(model.clip)
    used: list[str] = []
    errors: list[VideoError] = []

    def videos() -> Iterator[Tensor]:
        for found in expand_inputs(inputs):
            try:
                if isinstance(found, VideoError):
                    raise found
                assert isinstance(found, str)  # no arrays were given
                clip = read_clip(found, spec, resize_short=spec.size, limits=limits)
            except VideoError as error:
                errors.append(error)
                continue
            used.append(found)
            yield eval_transform(clip.frames, spec)[None]  # [1, T, 3, H, W]

    layers = measure_network(model, videos(), seed=seed)
    if not used:
        raise errors[0]
    for error in errors:
        failed(error)
    return NetworkOrder(
        model=str(folder), attention=model.config.attention, videos=tuple(used), layers=layers
    )


def measure_network(
    model: nn.Module, videos: Iterable[Tensor], *, seed: int = 0
) -> tuple[LayerOrder, ...]:
    """Compare scores of spikes with cosines of currents in every attention module.

    Args:
        model: in evaluation mode.
        videos: what it takes, ``[B, T, C, H, W]`` each; the forward passes run one after another.
        seed: decides which tokens are compared.

    Returns:
        One result for each module; nothing where there are no videos.

    Raises:
        ValueError: in no clip does any query of some module see keys of different cosine.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, list[_Part]] = defaultdict(list)
    modules: dict[str, SpikeAttention] = {}
    with torch.inference_mode(), _record(model) as seen:
        for video in videos:
            model(video)
            for name, (module, tensors) in seen.items():
                modules[name] = module
                parts[name].append(_compare(module, tensors, generator))
    return tuple(_merge(name, modules[name], found) for name, found in parts.items())


_Seen = dict[str, tuple[SpikeAttention, dict[str, Tensor]]]


@contextmanager
def _record(model: nn.Module) -> Iterator[_Seen]:
    """Tokens of every attention module in the last forward pass: q, k and what made them fire.

    Recording changes no output.
    """
    seen: _Seen = {}
    handles = []
    for name, module in model.named_modules():
        if not isinstance(module, SpikeAttention):
            continue
        for letter, neuron in (("q", module.q_neuron), ("k", module.k_neuron)):

            def record(
                _neuron: nn.Module,
                args: tuple[Tensor, ...],
                options: dict[str, Any],
                spikes: Tensor,
                *,
                name: str = name,
                module: SpikeAttention = module,
                letter: str = letter,
            ) -> None:
                norm = options.get("norm")  # the last BN is computed together with the neuron
                current = args[0] if norm is None else per_frame(norm, args[0])
                tensors = seen.setdefault(name, (module, {}))[1]
                for key, x in ((letter, spikes), (f"{letter}_current", current)):
                    tensors[key] = to_tokens(x, module.heads, module.axes)

            handles.append(neuron.register_forward_hook(record, with_kwargs=True))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one forward pass says of one module."""

    rates: Tensor  # of q and k, [2]
    kept: Tensor  # rank correlations of Hamming and dot product, NaN where undecided, [queries, 2]


def _compare(
    module: SpikeAttention, tensors: dict[str, Tensor], generator: torch.Generator
) -> _Part:
    batch, _, tokens, _ = tensors["q"].shape  # [batch, h, N, d]
    sequences = _some(batch, SEQUENCES, generator)
    queries = _some(tokens, QUERIES, generator)
    keys = _some(tokens, KEYS, generator)

    def pick(letter: str, of: Tensor) -> Tensor:
        return tensors[letter][sequences][:, :, of].double().cpu()

    q, k = pick("q", queries), pick("k", keys)
    x, y = (
        nn.functional.normalize(z, dim=-1)
        for z in (pick("q_current", queries), pick("k_current", keys))
    )
    cosines = (x @ y.mT).round(decimals=COSINE_DECIMALS)
    scores = torch.stack((hamming_scores(q, k, module.levels), q @ k.mT))  # [2, batch, h, N, M]
    kept = rank_correlation(scores, cosines).flatten(1).T  # [queries, 2]
    ordered = (cosines.amax(-1) - cosines.amin(-1) >= LEAST_SPREAD).flatten()
    rates = torch.stack([tensors[letter].double().mean().cpu() for letter in "qk"])
    return _Part(rates=rates, kept=kept[ordered])


def hamming_scores(q: Tensor, k: Tensor, levels: int) -> Tensor:
    """An integer that orders pairs as their Hamming similarity does, exactly.

    Equation:
        (2q - D).(2k - D) = D^2 d (2 f_H - 1), where f_H is the share of equal bits over all pairs
        of sub-steps of q and k (for binary spikes, D = 1, simply of equal bits): the score of
        :func:`spikevideoformer.ops.hamming.hamming_attention`.

    Args:
        q: spikes 0..D, ``[..., N, d]``.
        k: spikes 0..D, ``[..., M, d]``.
        levels: D.

    Returns:
        ``[..., N, M]``.
    """
    return (2 * q - levels) @ (2 * k - levels).mT


def _some(count: int, at_most: int, generator: torch.Generator) -> Tensor:
    """Different indices below ``count``."""
    return torch.randperm(count, generator=generator)[:at_most]


def _merge(name: str, module: SpikeAttention, parts: Sequence[_Part]) -> LayerOrder:
    kept = torch.cat([part.kept for part in parts])
    if not len(kept):
        raise ValueError(
            f"{name}: all keys of a query have one cosine, there is no order to keep; "
            "give a video in which something is to be seen, or a larger clip size"
        )
    hamming, dot = kept.nan_to_num(0.0).mean(0).tolist()
    hamming_undecided, dot_undecided = kept.isnan().double().mean(0).tolist()
    decided = kept[~kept.isnan().any(1)]
    of_decided = decided.mean(0).tolist() if len(decided) else [None, None]
    q_rate, k_rate = torch.stack([part.rates for part in parts]).mean(0).tolist()
    return LayerOrder(
        layer=name,
        axes=module.axes,
        width=module.channels // module.heads,
        levels=module.levels,
        queries=len(kept),
        q_firing_rate=q_rate,
        k_firing_rate=k_rate,
        hamming=hamming,
        dot=dot,
        hamming_undecided=hamming_undecided,
        dot_undecided=dot_undecided,
        hamming_decided=of_decided[0],
        dot_decided=of_decided[1],
    )
