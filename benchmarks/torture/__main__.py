"""Attack the library with damaged files, kills and hostile names, and print one table.

    python benchmarks/torture                      # all parts, full counts: half an hour
    python benchmarks/torture configs --scale 0.1  # one part, a tenth of its cases
    python benchmarks/torture --seed 7             # other chance

A case is right (the answer it should have), refused (one line that says why) or wrong (anything
else: a traceback, a silent loss, "please report it", a hang). Exit status 1 where one is wrong.
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

import calls
import damage
import media
import runs
import torch
from workshop import Part, Tally, Workshop

PARTS: dict[str, Part] = {
    "configs": damage.configs,
    "models": damage.models,
    "checkpoints": damage.checkpoints,
    "media": media.media,
    "kills": runs.kills,
    "terms": runs.terms,
    "nans": runs.nans,
    "names": calls.names,
    "together": calls.together,
    "many": calls.many,
}
"""What is run, in this order; a part is a function of a `Workshop` that gives a `Tally`."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full counts")
    options = parser.parse_args()
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"{', '.join(unknown)}: no such part; choose of {', '.join(PARTS)}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("spikevideoformer").setLevel(logging.ERROR)
    rows: list[tuple[str, Tally, float]] = []
    for name in options.parts or PARTS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="svf-torture-") as folder:
            begin_s = time.monotonic()
            tally = PARTS[name](Workshop(Path(folder), options.seed, options.scale))
            rows.append((name, tally, time.monotonic() - begin_s))
    print(f"seed {options.seed}, scale {options.scale:g}")
    print(f"{'part':<14}{'cases':>8}{'right':>8}{'refused':>9}{'wrong':>7}{'seconds':>9}")
    for name, tally, seconds in rows:
        counts = f"{tally.cases:>8}{tally.right:>8}{tally.refused:>9}{len(tally.wrong):>7}"
        print(f"{name:<14}{counts}{seconds:>9.0f}")
    for name, tally, _ in rows:
        for note in tally.notes:
            print(f"{name}: {note}")
        for line in tally.wrong:
            print(f"WRONG {name}: {line}")
    return int(any(tally.wrong for _, tally, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
