"""``svf bench``: speed and memory beside other implementations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from spikevideoformer.cli.options import DIR, Device, Json
from spikevideoformer.cli.output import folder_to_write, show


@dataclass(frozen=True, kw_only=True)
class Options(Json):
    """Measure speed and memory beside other implementations.

    Example: svf bench --quick

    Args:
        quick: the short form, within minutes.
        rows: these rows only (default: all).
        out: write tables, JSON and pictures into this folder.
        device: cpu leaves the GPU out.
        threads: of torch (default: its own).
    """

    quick: bool = False
    rows: str | None = field(default=None, metadata={"metavar": "NAME,..."})
    out: Path | None = field(default=None, metadata=DIR)
    device: Device = "auto"
    threads: int | None = field(default=None, metadata={"at_least": 1})


def run(options: Options) -> None:
    """Measure, and print a table of ratios."""
    from spikevideoformer.bench.options import check_rows

    rows = None if options.rows is None else options.rows.split(",")
    check_rows(rows)
    out = folder_to_write(options.out)

    from spikevideoformer.bench.run import format_table, run

    result = run(rows, quick=options.quick, out=out, device=options.device, threads=options.threads)
    show(options.json, result.to_dict(), format_table(result.measurements))
