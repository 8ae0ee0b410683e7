"""The ``svf`` command: arguments in, an exit status out.

Results go to stdout, progress and logs to stderr. Exit status: 0 done; 1 some inputs failed, each
named in one line; 2 wrong usage or unusable input, in one line; 130 interrupted; 143 terminated.
What a verb needs is imported when it runs, so that ``svf --help`` does not wait for torch.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from spikevideoformer.cli import (
    ablate,
    bench,
    convert,
    demo,
    energy,
    eval,
    models,
    predict,
    render,
    theory,
    train,
)
from spikevideoformer.cli.options import read_options
from spikevideoformer.cli.parser import Verb, parsed, with_dashes
from spikevideoformer.cli.streams import discard_results, prepare_streams
from spikevideoformer.messages import one_line
from spikevideoformer.stopping import Terminated, terminable

DONE, SOME_FAILED, UNUSABLE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


VERBS = {
    "demo": Verb(demo.Options, demo.run),
    "train": Verb(train.Options, train.run),
    "eval": Verb(eval.Options, eval.run),
    "predict": Verb(predict.Options, predict.run),
    "convert": Verb(convert.Options, convert.run),
    "bench": Verb(bench.Options, bench.run),
    "theory": Verb(theory.Options, theory.run),
    "energy": Verb(energy.Options, energy.run),
    "ablate": Verb(ablate.Options, ablate.run),
    "render": Verb(render.Options, render.run),
    "models": Verb(models.Options, models.run),
}
"""What ``svf`` can do."""


def share_cores() -> None:
    """Threads that wait for another one soon give their core away, unless the user says otherwise.

    OpenMP's usual way is to spin for milliseconds. Where another process has one of two cores, a
    training step took 50 times as long so, and 2 to 3 times with this; on idle cores 3 % more. It
    is read when torch is loaded, which no verb is before it runs.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments after ``svf``; None for those of the process.

    Returns:
        The exit status.
    """
    options, inputs = _before_and_after_dashes(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in options
    arguments = [*map(with_dashes, (o for o in options if o != "--debug")), *inputs]
    if argv is None:  # a process of its own, not a call in a program
        prepare_streams()
        share_cores()
    ending = terminable() if argv is None else nullcontext()
    with warnings.catch_warnings(), _logging_to_stderr(), ending:
        if argv is None and not debug and not sys.warnoptions:
            warnings.simplefilter("ignore")  # those of libraries, for developers and not for users
        try:
            known = parsed(arguments, VERBS)
            verb = VERBS[known.verb]
            failures = verb.run(read_options(verb.options, known))
            sys.stdout.flush()
            return SOME_FAILED if failures else DONE
        except SystemExit as leaving:  # --help and --version
            return int(leaving.code or DONE)
        except Terminated:
            print("svf: terminated", file=sys.stderr)
            return TERMINATED
        except KeyboardInterrupt:
            print("svf: interrupted", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:
            discard_results()  # the reader (head, less) has seen enough
            return DONE
        except Exception as error:  # noqa: BLE001 - the outermost place, where each becomes a line
            if debug:
                traceback.print_exc()
            print(f"svf: {explain(error)}", file=sys.stderr)
            if argv is None:
                discard_results()
            return UNUSABLE


def explain(error: Exception) -> str:
    """One line for a user: what is wrong and what to do."""
    text = one_line(" ".join(str(error).split()))
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return one_line(f"{where}{error.strerror}; check the path, permissions and free space")
    # Torch's two wordings of it, by who notices first.
    killed = "killed by signal" in text or "exited unexpectedly" in text
    if "DataLoader worker" in text and killed:
        return (
            "a loader process was killed, probably for want of memory; give fewer --workers or "
            "--cache off, and go on with --resume"
        )
    full = "can't allocate memory" in text  # torch's own on a CPU is a RuntimeError
    if full or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; lower --batch-size, --frames or --size, or choose a smaller model"
    if isinstance(error, ValueError):
        return text
    return f"unexpected {type(error).__name__}: {text}; --debug shows where, please report it"


def _before_and_after_dashes(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What may be options, and from -- on names that stay as they are."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:place]), list(arguments[place:])


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Messages of this package as plain lines on stderr."""
    logger = logging.getLogger("spikevideoformer")
    handler = logging.StreamHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
