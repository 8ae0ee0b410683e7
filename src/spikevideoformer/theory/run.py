"""``svf theory``: all measurements, as a table, as JSON and as pictures."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spikevideoformer.theory.collision import Bits, Collision, find_collision
from spikevideoformer.theory.network import NetworkOrder, measure_files
from spikevideoformer.theory.options import check_options
from spikevideoformer.theory.projections import (
    DELTAS,
    SCALED_DELTAS,
    EmbeddingError,
    Order,
    hoeffding_bound,
    measure_errors,
    measure_order,
    paper_bound,
)
from spikevideoformer.video.frames import DecodeLimits, VideoError
from spikevideoformer.video.inputs import VideoPath

SHOWN_DELTA = 0.1  # of DELTAS, in the table


@dataclass(frozen=True, kw_only=True)
class TheoryResult:
    """What `svf theory` finds.

    Attributes:
        seed: of all draws.
        errors: of Hamming similarity against g(cos), by width.
        orders: rank correlations, by firing rate and width.
        collision: keys that the dot product cannot tell apart.
        network: the same of a trained network, where one was given.
    """

    seed: int
    errors: tuple[EmbeddingError, ...]
    orders: tuple[Order, ...]
    collision: Collision
    network: NetworkOrder | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the bounds beside what was observed."""
        return {
            "seed": self.seed,
            "deltas": DELTAS,
            "scaled_deltas": SCALED_DELTAS,
            "errors": [
                asdict(e)
                | {
                    "paper_bound": [paper_bound(delta, e.width) for delta in DELTAS],
                    "hoeffding_bound": [hoeffding_bound(delta, e.width) for delta in DELTAS],
                }
                for e in self.errors
            ],
            "orders": [asdict(order) for order in self.orders],
            "collision": asdict(self.collision),
            "network": None if self.network is None else asdict(self.network),
        }


def run(
    *,
    seed: int = 0,
    model: VideoPath | None = None,
    inputs: Sequence[VideoPath] = (),
    limits: DecodeLimits = DecodeLimits(),  # noqa: B008 - frozen
    out: Path | None = None,
    tell: Callable[[str], None],
    failed: Callable[[VideoError], None],
) -> TheoryResult:
    """Measure, and write down.

    Args:
        seed: of all draws, 0 to 2^63 - 1.
        model: a model folder or hub id, measured on `inputs`; None for no network.
        inputs: videos, folders of videos and globs.
        limits: of decoding them.
        out: an existing folder for theory.json and pictures; nothing is written where None.
        tell: called with a line on each thing that begins.
        failed: called with each input that could not be used, where others could.

    Raises:
        ValueError: a seed out of range, a model without videos, videos without a model, or what
            `measure_files` raises.
    """
    check_options(seed, model, inputs)
    network = None
    if model is not None:  # first: what can be wrong is said at once
        tell("q and k of the network ...")
        network = measure_files(model, inputs, seed=seed, limits=limits, failed=failed)
    tell("errors of sign projections (seconds) ...")
    errors = measure_errors(seed=seed)
    tell("order of keys (seconds) ...")
    orders = measure_order(seed=seed)
    result = TheoryResult(
        seed=seed,
        errors=errors,
        orders=orders,
        collision=find_collision(seed),
        network=network,
    )
    if out is not None:
        tell(f"pictures in {out} ...")
        write(result, out)
    return result


def write(result: TheoryResult, out: Path) -> list[Path]:
    """Write theory.json and the pictures.

    Args:
        result: what to write.
        out: an existing folder.

    Returns:
        The files written.
    """
    from spikevideoformer.files import write_text
    from spikevideoformer.theory import plots  # matplotlib

    text = json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n"
    write_text(out / "theory.json", text)
    pictures: dict[str, Callable[[Path], None]] = {
        "error_vs_D.png": lambda path: plots.plot_errors(result.errors, path),
        "tail.png": lambda path: plots.plot_tail(result.errors, path),
        "rank_correlation.png": lambda path: plots.plot_orders(result.orders, path),
        "collision.png": lambda path: plots.plot_collision(result.collision, path),
    }
    if (network := result.network) is not None:
        pictures["qk.png"] = lambda path: plots.plot_network(network, path)
    for name, draw in pictures.items():
        draw(out / name)
    return [out / name for name in ("theory.json", *pictures)]


def format_table(result: TheoryResult) -> str:
    """The result as text.

    A bound of 1 or more says nothing and is shown as a dash.
    """
    sections = [_error_lines(result.errors), _order_lines(result.orders)]
    sections.append(_collision_lines(result.collision))
    if result.network is not None:
        sections.append(_network_lines(result.network))
    return "\n\n".join("\n".join(lines) for lines in sections)


def _error_lines(errors: Sequence[EmbeddingError]) -> Iterator[str]:
    delta = DELTAS.index(SHOWN_DELTA)
    yield (
        "Hamming similarity f_H of D sign bits against g(cos) = 1 - arccos(cos)/pi, "
        f"{errors[0].pairs:,} pairs of vectors"
    )
    tail = f"P(error > {SHOWN_DELTA})"
    yield f"{'D':>5}  {'mean error':>10}  {'95 % below':>10}  {tail:>14}    bound  Hoeffding"
    for e in errors:
        bounds = (bound(SHOWN_DELTA, e.width) for bound in (paper_bound, hoeffding_bound))
        paper, hoeffding = ("-" if b >= 1 else f"{b:.2g}" for b in bounds)
        share = f"{e.tail[delta]:.4f}" if e.tail[delta] else "0"
        yield (
            f"{e.width:>5}  {e.mean:>10.4f}  {e.quantile_95:>10.4f}  {share:>14}  {paper:>7}  "
            f"{hoeffding:>9}"
        )


def _order_lines(orders: Sequence[Order]) -> Iterator[str]:
    yield (
        f"Order of {orders[0].keys} keys: rank correlation with the cosine, mean over "
        f"{orders[0].queries} queries, f_H / q.k"
    )
    rates = list(dict.fromkeys(order.firing_rate for order in orders))
    heads = (f"firing rate {rate:g}" for rate in rates)
    yield "  ".join([f"{'D':>5}", *(f"{head:>15}" for head in heads)])
    for width in dict.fromkeys(order.width for order in orders):
        row = [order for order in orders if order.width == width]
        cells = (f"{order.hamming:.3f} / {order.dot:.3f}" for order in row)
        yield "  ".join([f"{width:>5}", *(f"{cell:>15}" for cell in cells)])


def _collision_lines(found: Collision) -> Iterator[str]:
    yield "One query, four keys of one dot product"
    yield f"query  {_bits(found.query)}"
    for key, dot, hamming in zip(found.keys, found.dot, found.hamming, strict=True):
        yield f"key    {_bits(key)}  q.k = {dot}  f_H = {hamming:.4f}"


def _bits(bits: Bits) -> str:
    return "".join(".#"[bit] for bit in bits)


def _network_lines(network: NetworkOrder) -> Iterator[str]:
    from spikevideoformer.messages import one_line

    yield one_line(
        f"q and k of {network.model} ({network.attention} attention), {len(network.videos)} "
        "videos: rank correlation with the cosine of the currents"
    )
    width = max(len(layer.layer) for layer in network.layers)
    yield (
        f"{'layer':<{width}}  {'axes':<10}  {'d':>3}  {'rate q / k':>13}  {'undecided':>13}  "
        f"{'f_H / q.k':>15}  {'where decided':>15}"
    )
    for layer in network.layers:
        rates = f"{layer.q_firing_rate:.3f} / {layer.k_firing_rate:.3f}"
        undecided = f"{layer.hamming_undecided:.1%} / {layer.dot_undecided:.1%}"
        kept = f"{layer.hamming:.3f} / {layer.dot:.3f}"
        if layer.hamming_decided is None or layer.dot_decided is None:
            decided = "-"
        else:
            decided = f"{layer.hamming_decided:.3f} / {layer.dot_decided:.3f}"
        yield (
            f"{layer.layer:<{width}}  {layer.axes:<10}  {layer.width:>3}  {rates:>13}  "
            f"{undecided:>13}  {kept:>15}  {decided:>15}"
        )
