"""What a study found, as a table, a file of numbers, a plot and a page."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from pathlib import Path

from matplotlib.figure import Figure

from spikevideoformer.ablation.study import Study, interval
from spikevideoformer.files import save_figure, write_text
from spikevideoformer.inference.document import document, picture

_COSTS = ("rate", "executed_mj", "merged_mj")


def write_report(study: Study, out: Path) -> None:
    """Write results.json, results.csv, table.md, results.png and report.html into a folder."""
    write_text(out / "results.json", json.dumps(to_dict(study), indent=1) + "\n")
    write_text(out / "results.csv", _csv(study))
    head, rows = table(study)
    lines = [f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]]
    write_text(out / "table.md", "\n".join(lines) + "\n")
    _plot(study, out / "results.png")
    page = document(
        "ablation.html",
        study.question.asks,
        head=head,
        rows=rows,
        seeds=", ".join(map(str, study.seeds)),
        verdicts=list(study.verdicts()),
        figure=picture(out / "results.png", "the last epoch of each seed; bars: the mean"),
    )
    write_text(out / "report.html", page)


def to_dict(study: Study) -> dict[str, object]:
    """Plain values for JSON."""
    first = next(iter(study.question.variants))
    variants = {}
    for name, about in study.question.variants.items():
        metrics = {}
        for metric in study.metrics:
            mean, half = study.difference(name, first, metric)
            metrics[metric] = {
                "values": study.values(name, metric),
                "difference": mean,
                "half_width_95": None if math.isnan(half) else half,
            }
        entries = study.entries[name]
        costs = {c: [e[c] for e in entries] for c in ("cpu_s", *_COSTS) if c in entries[0]}
        epochs = study.values(name, "epoch")[0]
        variants[name] = {"about": about.about, "epochs": epochs, "metrics": metrics, **costs}
    return {
        "question": study.name,
        "asks": study.question.asks,
        "seeds": list(study.seeds),
        "against": first,
        "variants": variants,
        "verdicts": list(study.verdicts()),
    }


def table(study: Study) -> tuple[list[str], list[list[str]]]:
    """Head and a row a variant: mean and spread over seeds, and the difference to the first."""
    first = next(iter(study.question.variants))
    costs = [c for c in _COSTS if c in study.entries[first][0]]
    epochs = {name: study.values(name, "epoch")[0] for name in study.question.variants}
    unlike = len(set(epochs.values())) > 1
    base_s = statistics.mean(study.values(first, "cpu_s"))
    head = [""]
    for metric in study.metrics:
        head += [metric, f"against {first}"]
    rows = []
    for name, about in study.question.variants.items():
        row = [about.about]
        for metric in study.metrics:
            values = study.values(name, metric)
            row.append(_spread(values))
            mean, half = study.difference(name, first, metric)
            width = "" if math.isnan(half) else f" ± {half:.3g}"
            row.append("" if name == first else f"{mean:+.3g}{width}")
        row.append(_spread(study.values(name, "train_loss")))
        row.append(f"{statistics.mean(study.values(name, 'cpu_s')) / base_s:.2f}")
        row += [f"{epochs[name]:.0f}"] if unlike else []
        for cost in costs:
            known = [e[cost] for e in study.entries[name] if e[cost] is not None]
            row.append(f"{statistics.mean(known):.3g}" if known else "")
        rows.append(row)
    return [*head, "train_loss", "CPU time", *(["epochs"] if unlike else []), *costs], rows


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.4g}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2g}"


def _csv(study: Study) -> str:
    """A row for each run, with the last row of its metrics.csv."""
    rows = [
        {"variant": name, "seed": seed, **entry["history"][-1], "cpu_s": entry["cpu_s"]}
        | {c: entry[c] for c in _COSTS if c in entry}
        for name, entries in study.entries.items()
        for seed, entry in zip(study.seeds, entries, strict=True)
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _plot(study: Study, path: Path) -> None:
    """A panel a metric: each seed as a dot, the mean with its interval as a bar."""
    names = list(study.question.variants)
    shown = study.metrics[:4]
    height = 1.2 + 0.35 * len(names)
    figure = Figure(figsize=(2 + 2.5 * len(shown), height), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for panel, metric in zip(panels, shown, strict=True):
        for i, name in enumerate(names):
            values = study.values(name, metric)
            mean, half = interval(values)
            bar = None if math.isnan(half) else half
            panel.errorbar(mean, i, xerr=bar, fmt="|", color="#333333", capsize=4, markersize=14)
            panel.plot(values, [i] * len(values), "o", color="#f58518", markersize=4)
        panel.set(xlabel=metric, yticks=range(len(names)), yticklabels=names)
        panel.grid(axis="x", color="#dddddd")
    panels[0].invert_yaxis()
    save_figure(figure, path)
