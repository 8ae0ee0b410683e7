"""The ``svf`` command: one verb, one small function.

Results go to stdout, progress and logs to stderr. Exit status: 0 done; 1 some inputs failed, each
named in one line; 2 wrong usage or unusable input, in one line; 130 interrupted. Whatever a verb
needs is imported by the verb, so that ``svf --help`` does not wait for torch.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import os
import re
import sys
import traceback
import warnings
from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from spikevideoformer.files import part_of, write_text
from spikevideoformer.messages import one_line
from spikevideoformer.settings import field_docs, merged, read_yaml

if TYPE_CHECKING:
    from torch import Tensor

    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
    from spikevideoformer.synth.motions import LabelledMotion
    from spikevideoformer.tasks.answer import FailedPrediction
    from spikevideoformer.tasks.classification.metrics import ClassificationResult
    from spikevideoformer.tasks.pose.metrics import PoseResult
    from spikevideoformer.tasks.pose.spec import PoseSpec
    from spikevideoformer.tasks.segmentation.metrics import SegmentationResult
    from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
    from spikevideoformer.training.pose import PoseEvaluation
    from spikevideoformer.video.clip import Clip
    from spikevideoformer.video.frames import DecodeLimits, VideoError
    from spikevideoformer.video.spec import ClipSpec

    Evaluation = ClassificationResult | SegmentationResult | PoseEvaluation
    Spec = ClipSpec | SegmentationSpec | PoseSpec

DONE, SOME_FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
LARGEST_COUNT = 128 * 1024**2  # pixels of a clip whose operations are counted


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments after ``svf``; None for those of the process.

    Returns:
        The exit status.
    """
    options, inputs = _before_and_after_dashes(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in options
    arguments = [*map(_with_dashes, (o for o in options if o != "--debug")), *inputs]
    if argv is None:  # a process of its own, not a call in a program
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # class names on any terminal
    with warnings.catch_warnings(), _logging_to_stderr():
        if argv is None and not debug and not sys.warnoptions:
            warnings.simplefilter("ignore")  # those of libraries, for developers and not for users
        try:
            status = _run(arguments)
            sys.stdout.flush()
            return status
        except SystemExit as leaving:  # --help and --version
            return int(leaving.code or DONE)
        except KeyboardInterrupt:
            print("svf: interrupted", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:
            # The reader (head, less) has seen enough. Python would complain once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return DONE
        except Exception as error:  # noqa: BLE001 - the outermost place, where each becomes a line
            if debug:
                traceback.print_exc()
            print(f"svf: {explain(error)}", file=sys.stderr)
            return UNUSABLE


def explain(error: Exception) -> str:
    """One line for a user: what is wrong and what to do."""
    text = one_line(" ".join(str(error).split()))
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return one_line(f"{where}{error.strerror}; check the path, permissions and free space")
    full = "can't allocate memory" in text  # torch's own on a CPU is a RuntimeError
    if full or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; lower --batch-size, --frames or --size, or choose a smaller model"
    if isinstance(error, ValueError):
        return text
    return f"unexpected {type(error).__name__}: {text}; --debug shows where, please report it"


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One thing that ``svf`` does."""

    does: str
    example: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Namespace], int]


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one ValueError."""

    def error(self, message: str) -> NoReturn:
        """Complain, and say where help is."""
        raise ValueError(f"{message}; see `{self.prog} --help`")


def _run(arguments: list[str]) -> int:
    parser, verb_parsers = _parsers(arguments)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        verb_parser = verb_parsers[known.verb]
        option = next((u for u in unknown if u.startswith("-")), None)
        if option is None:
            verb_parser.error(f"did not expect {unknown[0]!r}")
        flags = [flag for action in verb_parser._actions for flag in action.option_strings]
        near = get_close_matches(option.partition("=")[0], flags, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        verb_parser.error(f"unknown option {option}{hint}")
    return VERBS[known.verb].run(known)


def _parsers(arguments: Sequence[str]) -> tuple[Parser, dict[str, Parser]]:
    """The parser, with the options of the one verb that is used, or of all for a completion."""
    every = any(a.partition("=")[0] == "--completion" for a in arguments[:1])
    first = None if every else next((a for a in arguments if not a.startswith("-")), None)
    if first is not None and first not in VERBS:
        near = get_close_matches(first, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(VERBS)}"
        raise ValueError(f"unknown verb {first!r}; {hint}")
    parser = Parser(
        prog="svf",
        description="Spiking video transformer: train on a folder of videos, use on a new one.",
        epilog="`svf VERB --help` has an example of each.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version)
    parser.add_argument(
        "--completion",
        action=_Completion,
        choices=("bash", "zsh", "fish"),
        help="print what makes this shell complete options with the tab key (docs/cli.md)",
    )
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verb_parsers = {}
    for name, verb in VERBS.items():
        verb_parser = verb_parsers[name] = subparsers.add_parser(
            name,
            help=verb.does,
            description=f"{verb.does[0].upper()}{verb.does[1:]}.",
            epilog=f"example:\n  {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if every or name == first:
            verb.options(verb_parser)
            verb_parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser, verb_parsers


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="show the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from spikevideoformer import __version__

        print(__version__)
        parser.exit()


class _Completion(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        _namespace: Namespace,
        values: Any,
        _option: str | None = None,
    ) -> None:
        import shtab

        whole, verb_parsers = _parsers(["--completion"])
        for verb_parser in verb_parsers.values():
            for action in verb_parser._actions:
                is_file = action.type is _path or action.metavar == "PATH"
                if is_file or action.dest in ("model", "inputs", "videos"):
                    action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's own
        print(shtab.complete(whole, values))
        parser.exit()


def _before_and_after_dashes(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What may be options, and from -- on names that stay as they are."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:place]), list(arguments[place:])


def _with_dashes(argument: str) -> str:
    """--batch_size is as good as --batch-size: configuration files have the former."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


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


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_json(value: Mapping[str, Any]) -> None:
    """One object on one line; what JSON has no word for (NaN) is an error."""
    print(json.dumps(value, allow_nan=False), flush=True)


# --- Options that several verbs share ------------------------------------------------------------


def _model_options(parser: argparse.ArgumentParser, *, batch_size: str) -> None:
    parser.add_argument(
        "--model", required=True, metavar="FOLDER", help="model folder, or a hub id (owner/name)"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto (default) takes CUDA where there is one",
    )
    parser.add_argument(
        "--precision",
        choices=("32-true", "bf16-mixed", "16-mixed"),
        default="32-true",
        help="16-mixed needs CUDA (default 32-true)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help=f"clips at a time (default {batch_size})",
    )


def _limits_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--no-decode-limits",
        action="store_true",
        help="decode files that unpack to huge videos, too",
    )


def _json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")


def _task_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task",
        choices=("classification", "segmentation", "pose"),
        help="complain where the model is made for another one",
    )


def _tiling_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--sliding-window",
        action="store_true",
        help="look at windows as large as training crops, instead of the picture as a whole",
    )
    group.add_argument(
        "--scales",
        type=_numbers,
        metavar="X,X,...",
        help="average over these multiples of the size, such as 0.75,1,1.25 (default 1)",
    )
    group.add_argument("--flip", action="store_true", help="average with the mirrored picture")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers like 0.75,1") from error


def _check_task(arguments: Namespace, task: str, tasks_of: Mapping[str, Collection[str]]) -> None:
    """Refuse a model for another task than is asked for, and the options of other tasks.

    Args:
        arguments: of the verb.
        task: of the model.
        tasks_of: for each option that not every task has, those that have it.
    """
    if arguments.task not in (None, task):
        raise ValueError(
            f"--task is {arguments.task}, but {arguments.model} is a model for {task}; leave out "
            "--task or give another --model"
        )
    for name, tasks in tasks_of.items():
        if task not in tasks and getattr(arguments, name) not in (None, False):
            raise ValueError(
                f"{arguments.model} is a model for {task}, which has no "
                f"--{name.replace('_', '-')}; leave it out"
            )


def _limits(arguments: Namespace) -> DecodeLimits:
    from spikevideoformer.video.sources import DecodeLimits

    return DecodeLimits.unlimited() if arguments.no_decode_limits else DecodeLimits()


def _folder_to_write(path: Path) -> Path:
    _refuse_file(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _refuse_file(out: Path | None) -> None:
    """What --out names is a folder, or is still to be made."""
    if out is not None and out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give --out a folder")


def _require_file(path: Path | None, what: str) -> None:
    if path is not None and not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"{path} {state}; give {what}")


def _require_at_least(arguments: Namespace, **least: int) -> None:
    """Refuse numbers that are too small; what is not given is fine."""
    for name, smallest in least.items():
        if (value := getattr(arguments, name)) is not None and value < smallest:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; give at least {smallest}")


def _require_above_zero(arguments: Namespace, *names: str) -> None:
    for name in names:
        if (value := getattr(arguments, name)) is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; give a number above 0")


def _path(text: str) -> Path:
    """A path as a shell understands it: of --out=~/x no shell makes the home folder."""
    return Path(os.path.expanduser(text))  # Path's own raises for unknown users


# --- svf demo ------------------------------------------------------------------------------------


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=_path,
        metavar="DIR",
        help="folder for clips, the run and the report (default demo, demo_masks or demo_pose)",
    )
    parser.add_argument(
        "--task",
        choices=("classification", "segmentation", "pose"),
        default="classification",
        help="what the network learns: which motion, which shape is where, or the pose of a body "
        "(default classification)",
    )


def _demo(arguments: Namespace) -> int:
    task = arguments.task
    default = {"classification": "demo", "segmentation": "demo_masks", "pose": "demo_pose"}
    out = _folder_to_write(arguments.out or Path(default[task]))
    if task == "segmentation":
        from spikevideoformer.demo.segmentation import run_segmentation_demo

        print(run_segmentation_demo(out, tell=_note))
    elif task == "pose":
        from spikevideoformer.demo.pose import run_pose_demo

        print(run_pose_demo(out, tell=_note))
    else:
        from spikevideoformer.demo.classification import run_demo

        print(run_demo(out, tell=_note))
    return DONE


# --- svf train -----------------------------------------------------------------------------------


def _train_options(parser: argparse.ArgumentParser) -> None:
    from spikevideoformer.training.config import TrainConfig

    parser.usage = "svf train --data DIR [--out DIR] [--model NAME] [--task TASK] [--resume] ..."
    parser.add_argument(
        "--config", type=_path, metavar="FILE.yaml", help="settings; options given here override it"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --out (with its settings)"
    )
    _json_option(parser)
    group = parser.add_argument_group("settings (--name VALUE here, name: VALUE in the file)")
    _config_options(group, TrainConfig)


def _config_options(group: argparse._ArgumentGroup, config: type, prefix: str = "") -> None:
    """An option for each field of a configuration; what is not given stays out of the namespace."""
    hints, helps = get_type_hints(config), field_docs(config)
    for f in fields(config):
        hint, name = hints[f.name], prefix + f.name
        if is_dataclass(hint):
            _config_options(group, hint, f"{name}.")  # type: ignore[arg-type]  # a class
            continue
        text = helps[f.name].replace("%", "%%")
        if f.default is not MISSING and f.default is not None:
            text += f" (default {f.default})"
        flags = [f"--{name.replace('_', '-')}"]
        if name == "unlimited_decoding":
            flags.append("--no-decode-limits")  # as it is called everywhere else
        options: dict[str, Any] = {"metavar": _metavar(hint)}
        if hint is bool:
            options["metavar"] = "true|false"
        if bool in (hint, *get_args(hint)):  # can be switched on without a value
            options |= {"nargs": "?", "const": True}
        group.add_argument(
            *flags,
            dest=f"setting {name}",
            default=argparse.SUPPRESS,
            type=_text_or_null if {str, Path} & {hint, *get_args(hint)} else _yaml_value,
            help=text,
            **options,
        )


def _yaml_value(text: str) -> Any:
    """What the text would be in a file; the configuration decides whether it will do."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, (bool, int, float, list, dict, type(None))) else text


def _text_or_null(text: str) -> Any:
    """Names and paths stay as typed, even one that looks like a number; null and {...} do not."""
    return _yaml_value(text) if text == "null" or text.startswith("{") else text


def _metavar(hint: Any) -> str:
    options = [option for option in get_args(hint) or (hint,) if option is not type(None)]
    if get_origin(hint) is Literal:
        return "|".join(options)
    first = options[0]
    if get_origin(first) is Literal:
        return "|".join(get_args(first))
    return {int: "N", float: "X", Path: "PATH", str: "NAME"}.get(first, "VALUE")


def _settings(arguments: Namespace) -> dict[str, Any]:
    """The options of `_config_options` that were given, nested as in a file."""
    settings: dict[str, Any] = {}
    for name, value in vars(arguments).items():
        if name.startswith("setting "):
            place = settings
            *outer, last = name.removeprefix("setting ").split(".")
            for key in outer:
                place = place.setdefault(key, {})
            place[last] = value
    return settings


def _train(arguments: Namespace) -> int:
    from spikevideoformer.training.config import TrainConfig, check_paths

    settings = _settings(arguments)
    file = arguments.config
    if file is None and arguments.resume:
        if "out" not in settings:
            raise ValueError("--resume needs --out, the folder of the run to go on with")
        file = _path(settings["out"]) / "config.yaml"
        if not file.is_file():
            raise ValueError(f"{file} is missing: no run to resume; start one without --resume")
    settings = merged({} if file is None else read_yaml(file), settings)
    data = settings.get("data")
    out = settings.get("out") or ("run" if data is None else _run_folder(data))
    config = TrainConfig.from_dict({**settings, "out": out})
    if data is None:
        raise ValueError("no data is given; set --data to the folder of the data set")
    _refuse_file(config.out)
    check_paths(config, resume=arguments.resume)

    from spikevideoformer.training import train
    from spikevideoformer.training.recipe import with_recipe

    chosen = ""
    if file is None:  # which holds all that was chosen
        full, chosen = with_recipe({**settings, "out": str(out)})
        config = TrainConfig.from_dict(full)
    config.out.mkdir(parents=True, exist_ok=True)
    if "out" not in settings:
        _note(f"writing into {out}; --out chooses another folder")
    result = train(config, resume=arguments.resume, about=chosen)
    if not result.is_main_process:
        return DONE
    if arguments.json:
        _print_json(
            {
                "out": str(result.out),
                "model": str(result.model),
                "best_epoch": result.best_epoch,
                "evaluation": result.evaluation.to_dict(),
                "notes": list(result.notes),
            }
        )
    else:
        print("\n".join(_evaluation_lines(result.evaluation)))
        print(f"model of epoch {result.best_epoch}: {result.model}")
    for line in result.notes:
        _note(f"note: {line}")
    return DONE


def _run_folder(data: Any) -> str:
    """Where a run goes that was given no folder: runs/NAME, by the name of its data."""
    return str(Path("runs") / _path(str(data)).resolve().name)


# --- svf eval ------------------------------------------------------------------------------------


def _eval_options(parser: argparse.ArgumentParser) -> None:
    _model_options(parser, batch_size="8")
    parser.add_argument(
        "--data", type=_path, required=True, metavar="DIR", help="folder of the data set"
    )
    parser.add_argument(
        "--split", default="val", help="one of the data set, such as train or test (default val)"
    )
    parser.add_argument("--layout", metavar="NAME", help="how the data lies (default: recognised)")
    _task_option(parser)
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="processes that decode (default 2)"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="go on without videos that cannot be read"
    )
    parser.add_argument(
        "--out",
        type=_path,
        metavar="DIR",
        help="also write evaluation.json, plots (and skipped.csv) into this folder",
    )
    _json_option(parser)
    group = parser.add_argument_group("only for classification")
    group.add_argument("--fold", type=int, metavar="N", help="official fold, where there are some")
    group.add_argument(
        "--clips", type=int, metavar="N", help="clips to average a video over (default 1)"
    )
    _limits_option(group)
    _tiling_options(parser.add_argument_group("only for segmentation"))
    _body_option(parser.add_argument_group("only for pose"))


_LABELS, _MASKS, _POSE = ("classification",), ("segmentation",), ("pose",)
EVAL_OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("fold", "clips", "no_decode_limits"), _LABELS),
    **dict.fromkeys(("sliding_window", "scales", "flip"), _MASKS),
    "body": _POSE,
    "batch_size": (*_LABELS, *_POSE),
}


def _body_option(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--body",
        type=_path,
        metavar="FILE",
        help="SMPL as convert_smpl wrote it, for a model that was trained with it",
    )


def _eval(arguments: Namespace) -> int:
    _require_at_least(arguments, clips=1, workers=0, batch_size=1)
    _refuse_file(arguments.out)
    from spikevideoformer.body.smpl_file import require_smpl_file
    from spikevideoformer.data.index import check_data_folder
    from spikevideoformer.models.folder import read_about

    task = read_about(arguments.model)["task"]
    _check_task(arguments, task, EVAL_OPTIONS)
    check_data_folder(arguments.data, "data set")
    if arguments.body is not None:
        require_smpl_file(arguments.body)
    out = None if arguments.out is None else _folder_to_write(arguments.out)
    evaluated: dict[str, Callable[[Namespace, Path | None], Evaluation]] = {
        "classification": _evaluated,
        "segmentation": _evaluated_masks,
        "pose": _evaluated_poses,
    }
    result = evaluated[task](arguments, out)

    from spikevideoformer.training.advice import about_answers

    for line in about_answers(result):
        _note(f"note: {line}")
    if out is not None:
        write_text(out / "evaluation.json", json.dumps(result.to_dict(), indent=2) + "\n")
    if arguments.json:
        _print_json(result.to_dict())
    else:
        print("\n".join(_evaluation_lines(result)))
    return DONE


def _evaluated(arguments: Namespace, out: Path | None) -> ClassificationResult:
    from spikevideoformer.tasks.classification.index import read_index
    from spikevideoformer.video.sources import VideoError

    index = read_index(
        arguments.data, split=arguments.split, layout=arguments.layout, fold=arguments.fold or 1
    )
    from spikevideoformer.training import evaluate_folder

    try:
        result = evaluate_folder(
            Path(arguments.model),
            index,
            clips_per_video=arguments.clips or 1,
            batch_size=arguments.batch_size or 8,
            workers=arguments.workers,
            device=arguments.device,
            precision=arguments.precision,
            check="full" if arguments.skip_bad else "open",
            skip_bad=arguments.skip_bad,
            limits=_limits(arguments),
            out=out,
        )
    except VideoError as error:
        raise ValueError(f"{error}; leave such files out with --skip-bad") from error
    return result


def _evaluated_masks(arguments: Namespace, out: Path | None) -> SegmentationResult:
    from spikevideoformer.tasks.segmentation.index import read_sequences

    index = read_sequences(arguments.data, split=arguments.split, layout=arguments.layout)
    from spikevideoformer.training import evaluate_folder

    return evaluate_folder(
        Path(arguments.model),
        index,
        workers=arguments.workers,
        device=arguments.device,
        precision=arguments.precision,
        check="full" if arguments.skip_bad else "open",
        skip_bad=arguments.skip_bad,
        out=out,
        sliding_window=arguments.sliding_window,
        scales=arguments.scales or (1.0,),
        flip=arguments.flip,
    )


def _evaluated_poses(arguments: Namespace, out: Path | None) -> PoseEvaluation:
    from spikevideoformer.tasks.pose.index import read_poses
    from spikevideoformer.training import evaluate_folder

    return evaluate_folder(
        Path(arguments.model),
        read_poses(arguments.data, split=arguments.split, layout=arguments.layout),
        body=arguments.body,
        batch_size=arguments.batch_size or 8,
        workers=arguments.workers,
        device=arguments.device,
        precision=arguments.precision,
        check="full" if arguments.skip_bad else "open",
        skip_bad=arguments.skip_bad,
        out=out,
    )


def _evaluation_lines(result: Evaluation) -> Iterator[str]:
    from spikevideoformer.tasks.segmentation.metrics import SegmentationResult
    from spikevideoformer.training.pose import PoseEvaluation

    if isinstance(result, PoseEvaluation):
        yield from map(one_line, _pose_lines(result.result))
        return
    if isinstance(result, SegmentationResult):
        yield from map(one_line, _mask_lines(result))
        return
    yield f"top-1 {result.top1:.1%}, top-5 {result.top5:.1%} of {result.clips} videos"
    yield f"mean over classes {result.mean_class_accuracy:.1%}, loss {result.loss:.3f} nats"
    width = max(map(len, result.classes))
    for name, share, row in zip(
        result.classes, result.class_accuracy, result.confusion, strict=True
    ):
        if share is not None:
            yield one_line(f"  {name:<{width}}  {share:6.1%} of {sum(row)}")


def _mask_lines(result: SegmentationResult) -> Iterator[str]:
    yield (
        f"mIoU {result.miou:.1%}, pixel accuracy {result.pixel_accuracy:.1%} of "
        f"{result.frames} frames"
    )
    held = [
        f"mVC{n} {share:.1%}"
        for n, share in ((8, result.mvc8), (16, result.mvc16))
        if share is not None
    ]
    loss = "" if result.loss is None else f", loss {result.loss:.3f} nats"
    yield ", ".join([f"mean over classes {result.mean_class_accuracy:.1%}{loss}", *held])
    width = max(map(len, result.classes))
    for name, iou, pixels in zip(
        result.classes, result.class_iou, result.class_pixels, strict=True
    ):
        if iou is not None:
            yield f"  {name:<{width}}  IoU {iou:6.1%}  ({pixels / result.pixels:.1%} of pixels)"


def _pose_lines(result: PoseResult) -> Iterator[str]:
    def text(value: float | None, form: str = ".1f", unit: str = " mm") -> str:
        return "unknown" if value is None else f"{value:{form}}{unit}"

    def share(value: float | None) -> str:
        return text(value, ".1%", "")

    all_ = result.overall
    yield (
        f"MPJPE {text(all_.mpjpe_mm)}, PA-MPJPE {text(all_.pa_mpjpe_mm)}, "
        f"PEL-MPJPE {text(all_.pel_mpjpe_mm)} of {result.frames} frames"
    )
    acceleration = text(all_.acceleration_error_mm_per_s2, unit=" mm/s^2")
    yield (
        f"acceleration error {acceleration}, joints found: "
        f"in space {share(all_.pck_3d)}, in the picture {share(all_.pck_2d)}, "
        f"PCKh {share(all_.pckh)}"
    )
    for table in (result.joints, result.actions):
        width = max(map(len, table))
        for name, scores in table.items():
            yield (
                f"  {name:<{width}}  MPJPE {text(scores.mpjpe_mm):>9}  "
                f"PA-MPJPE {text(scores.pa_mpjpe_mm):>9}"
            )


# --- svf predict ---------------------------------------------------------------------------------


def _predict_options(parser: argparse.ArgumentParser) -> None:
    _model_options(parser, batch_size="1 on a CPU, 8 on CUDA")
    _task_option(parser)
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="video files, folders of videos, folders of numbered images, or globs in quotes",
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "exact", "int8", "model"),
        default="auto",
        help="exact: the fast one that fires the model's own spikes; int8: faster, with rounded "
        "weights; model: the model as it is; auto (default): exact on a CPU, model on CUDA",
    )
    parser.add_argument(
        "--out",
        type=_path,
        metavar="DIR",
        help="also write annotated videos into this folder (for segmentation with a JSON file and "
        "a plot of areas for each; for pose with a side view, a BVH and a JSON file)",
    )
    parser.add_argument(
        "--sequence-rate-hz",
        type=float,
        default=25.0,
        metavar="HZ",
        help="pictures per second of folders of numbered images (default 25)",
    )
    _limits_option(parser)
    _json_option(parser)
    _label_options(parser.add_argument_group("only for classification"))
    _mask_options(parser.add_argument_group("only for segmentation"))
    _pose_options(parser.add_argument_group("only for pose"))


def _label_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--html",
        action="store_true",
        help="with --out, also a page for each video: where and when neurons fire, what it costs",
    )
    group.add_argument("--top-k", type=int, metavar="K", help="labels to report (default 5)")
    group.add_argument(
        "--window-s",
        type=float,
        metavar="S",
        help="judge the video in windows of S seconds (default: the whole of it as one, or the "
        "length that the model was made for)",
    )


def _mask_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--masks",
        action="store_true",
        help="with --out, also the mask of each frame as a PNG file of class indices",
    )
    _tiling_options(group)


def _pose_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--box",
        type=_box,
        metavar="LEFT,TOP,SIDE",
        help="square around the person, in pixels, the same for the whole video (default: all of "
        "the picture); a negative LEFT needs an equals sign: --box=-5,10,300",
    )
    group.add_argument(
        "--field-of-view-deg",
        type=float,
        metavar="DEG",
        help="angle that the longer side of the picture spans (default 55); it sets the distance",
    )
    group.add_argument(
        "--focal-px", type=float, metavar="PIXELS", help="focal length, where it is known"
    )
    _body_option(group)


def _box(text: str) -> tuple[int, int, int]:
    if not re.fullmatch(r"-?\d+,-?\d+,\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no box like 120,40,300")
    left, top, side = map(int, text.split(","))
    return left, top, side


PREDICT_OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("html", "top_k", "window_s", "batch_size"), _LABELS),
    **dict.fromkeys(("masks", "sliding_window", "scales", "flip"), _MASKS),
    **dict.fromkeys(("box", "field_of_view_deg", "focal_px", "body"), _POSE),
}


def _predict(arguments: Namespace) -> int:
    from spikevideoformer.body.smpl_file import require_smpl_file
    from spikevideoformer.models.folder import read_about
    from spikevideoformer.video.inputs import expand_inputs
    from spikevideoformer.video.sources import VideoError

    _require_at_least(arguments, top_k=1, batch_size=1)
    _require_above_zero(arguments, "window_s", "sequence_rate_hz", "focal_px")
    for name, what in (("html", "pages"), ("masks", "PNG files")):
        if getattr(arguments, name) and arguments.out is None:
            raise ValueError(f"--{name} writes {what} into a folder; give one with --out")
    found = list(expand_inputs(arguments.inputs))
    videos = [video for video in found if isinstance(video, str)]
    absent = [error for error in found if isinstance(error, VideoError)]
    if not videos:
        raise absent[0]
    _refuse_file(arguments.out)
    _check_task(arguments, read_about(arguments.model)["task"], PREDICT_OPTIONS)
    if arguments.body is not None:
        require_smpl_file(arguments.body)
    out = None if arguments.out is None else _folder_to_write(arguments.out)
    targets = {} if out is None else annotated_names(videos, out)

    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer

    model = SpikeVideoFormer.from_pretrained(arguments.model)
    for error in absent:
        _note_failure(error)
    failures = len(absent) + _predict_videos(arguments, model, videos, targets)
    return SOME_FAILED if failures else DONE


def _predict_videos(
    arguments: Namespace, model: SpikeVideoFormer, videos: Sequence[str], targets: dict[str, Path]
) -> int:
    """Predict, draw where there is a target, and print; how many videos could not be read."""
    from spikevideoformer.body.smpl import load_body
    from spikevideoformer.inference.predictor import predictor_for
    from spikevideoformer.progress import progress_on_stderr
    from spikevideoformer.tasks.answer import FailedPrediction
    from spikevideoformer.video.sources import VideoError

    settings = {name: getattr(arguments, name) for name in ("device", "precision", "engine")}
    reading = {"limits": _limits(arguments), "sequence_rate_hz": arguments.sequence_rate_hz}
    keep: dict[str, Any] = {}  # of a prediction that is only printed
    files: dict[str, Any] = {}  # of one that is drawn
    if model.task == "classification":
        files = keep = {"top_k": 5 if arguments.top_k is None else arguments.top_k}
        keep |= {"window_s": arguments.window_s, "batch_size": arguments.batch_size}
        files = {**keep, "html": arguments.html, "tell": _note}
    elif model.task == "segmentation":
        settings |= {"scales": arguments.scales or (1.0,), "flip": arguments.flip}
        keep, files = {"keep_masks": False}, {"masks": arguments.masks}
    else:
        settings |= {n: getattr(arguments, n) for n in ("field_of_view_deg", "focal_px", "box")}
        settings["body"] = None if arguments.body is None else load_body(arguments.body)
    predictor = predictor_for(model.task)(model, **settings)
    if arguments.sliding_window:
        predictor.window = predictor.clip.crop  # type: ignore[attr-defined]

    def results() -> Iterator[tuple[Any, dict[str, str]]]:
        if not targets and model.task == "classification":  # videos share batches
            for result in predictor.predict_many(videos, **keep, **reading):
                yield result, {}
            return
        for video in videos:
            try:
                with progress_on_stderr("frame") as tell:
                    if targets:
                        out = targets[video]
                        yield predictor.write(video, out, progress=tell, **files, **reading)
                    else:
                        yield predictor.predict(video, progress=tell, **keep, **reading), {}
            except VideoError as error:
                yield FailedPrediction(path=str(error.path), reason=error.reason), {}

    failures = 0
    for result, written in results():
        if isinstance(result, FailedPrediction):
            failures += 1
            _note_failure(result)
            continue
        _note_silence(result.path, result.firing_rate)
        if arguments.json:
            _print_json(
                result.to_dict(**({"frames": not written} if model.task == "pose" else {}))
                | written
            )
        else:
            print("\n".join([*result.lines(), *(f"  {k}: {v}" for k, v in written.items())]))
            sys.stdout.flush()
    return failures


def _note_silence(path: str | None, rate: float | None) -> None:
    from spikevideoformer.nn.neuron import silence

    if (line := silence(rate)) is not None:
        _note(one_line(f"svf: {path}: {line}"))


def _note_failure(failure: FailedPrediction | VideoError) -> None:
    _note(one_line(f"svf: {failure.path}: {failure.reason}"))


def annotated_names(videos: Sequence[str], out: Path) -> dict[str, Path]:
    """Where the annotated form of each video goes: no two to one file, none onto an input.

    Nor does the file go onto an input that holds a video until it is complete.
    """
    taken = {os.path.realpath(video).casefold() for video in videos}
    targets = {}
    for video in videos:
        stem = Path(os.path.abspath(video)).stem
        number = 1
        while True:
            target = out / (f"{stem}.svf.mp4" if number == 1 else f"{stem}-{number}.svf.mp4")
            whole = (target, target.with_suffix(".side.mp4"))
            # Some file systems take names that differ in case only for the same.
            keys = {os.path.realpath(p).casefold() for p in (*whole, *map(part_of, whole))}
            if not keys & taken:
                break
            number += 1
        taken |= keys
        targets[video] = target
    return targets


# --- svf convert ---------------------------------------------------------------------------------


def _convert_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=_path, metavar="CHECKPOINT.pth", help="published file")
    parser.add_argument(
        "--attention",
        required=True,
        choices=("joint_hamming", "joint_dot", "spatial_dot"),
        help="what it was trained with",
    )
    parser.add_argument("--out", type=_path, required=True, metavar="FOLDER", help="model folder")
    parser.add_argument("--heads", type=int, default=8, metavar="N", help="heads (default 8)")
    parser.add_argument(
        "--classes", type=_path, metavar="FILE", help="class names, one on each line, in order"
    )
    parser.add_argument(
        "--frames", type=int, default=8, metavar="T", help="frames of a clip (default 8)"
    )
    parser.add_argument(
        "--size", type=int, default=224, metavar="PIXELS", help="input size (default 224)"
    )
    parser.add_argument(
        "--frame-rate-hz",
        type=float,
        metavar="HZ",
        help="frames per second (default: spread over the whole video)",
    )
    _json_option(parser)


def _convert(arguments: Namespace) -> int:
    from spikevideoformer.models.config import STRIDE
    from spikevideoformer.video.spec import ClipSpec

    clip = ClipSpec(
        frames=arguments.frames, size=arguments.size, frame_rate_hz=arguments.frame_rate_hz
    )
    if clip.size % STRIDE:
        raise ValueError(f"--size is {clip.size}; give a multiple of {STRIDE}")
    _require_at_least(arguments, heads=1)
    _refuse_file(arguments.out)
    _require_file(arguments.checkpoint, "a published .pth checkpoint")
    _require_file(arguments.classes, "--classes a file with one class name on each line")
    classes = None if arguments.classes is None else _lines(arguments.classes)

    from spikevideoformer.models.published import load_published

    model = load_published(
        arguments.checkpoint, attention=arguments.attention, heads=arguments.heads
    )
    model.save_pretrained(_folder_to_write(arguments.out), classes=classes, clip=clip.to_dict())
    about = {
        "model": str(arguments.out),
        "parameters": model.num_parameters(),
        "classes": model.num_classes,
        "widths": list(model.config.widths),
        "design": model.config.design,
        "attention": model.config.attention,
    }
    if arguments.json:
        _print_json(about)
    else:
        print(
            f"wrote {arguments.out}: {about['parameters']:,} parameters, widths "
            f"{'/'.join(map(str, model.config.widths))}, {model.num_classes} classes, "
            f"{model.config.design} {model.config.attention} attention"
        )
    return DONE


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; give one class name on each line") from None
    return [line.strip() for line in lines if line.strip()]


# --- svf bench -----------------------------------------------------------------------------------


def _bench_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="the short form, within minutes")
    parser.add_argument("--rows", metavar="NAME,...", help="these rows only (default: all)")
    parser.add_argument(
        "--out", type=_path, metavar="DIR", help="write tables, JSON and pictures into this folder"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="cpu leaves the GPU out (default auto)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of torch (default: its own)")
    _json_option(parser)


def _bench(arguments: Namespace) -> int:
    from spikevideoformer.bench.options import check_rows

    _require_at_least(arguments, threads=1)
    rows = None if arguments.rows is None else arguments.rows.split(",")
    check_rows(rows)
    out = None if arguments.out is None else _folder_to_write(arguments.out)

    from spikevideoformer.bench.run import format_table, run

    result = run(
        rows,
        quick=arguments.quick,
        out=out,
        device=arguments.device,
        threads=arguments.threads,
    )
    if arguments.json:
        _print_json(result.to_dict())
    else:
        print(format_table(result.measurements))
    return DONE


# --- svf theory ----------------------------------------------------------------------------------


def _theory_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "svf theory [--out DIR] [--model FOLDER VIDEO ...] [--seed N] [--json]"
    parser.add_argument(
        "--model", metavar="FOLDER", help="also measure q and k of this model (or hub id)"
    )
    parser.add_argument(
        "videos",
        nargs="*",
        metavar="VIDEO",
        help="what the model sees: video files, folders of videos, or globs in quotes",
    )
    parser.add_argument(
        "--out", type=_path, metavar="DIR", help="write theory.json and pictures into this folder"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all draws (default 0)")
    _limits_option(parser)
    _json_option(parser)


def _theory(arguments: Namespace) -> int:
    from spikevideoformer.theory.options import check_options

    check_options(arguments.seed, arguments.model, arguments.videos)
    _refuse_file(arguments.out)
    if arguments.model is not None:
        _check_model_and_inputs(arguments.model, arguments.videos, task="classification")

    from spikevideoformer.theory.run import format_table, run

    failures: list[VideoError] = []
    result = run(
        seed=arguments.seed,
        model=arguments.model,
        inputs=arguments.videos,
        limits=_limits(arguments),
        out=None if arguments.out is None else _folder_to_write(arguments.out),
        tell=_note,
        failed=failures.append,
    )
    for failure in failures:
        _note_failure(failure)
    if arguments.json:
        _print_json(result.to_dict())
    else:
        print(format_table(result))
    return SOME_FAILED if failures else DONE


def _check_model_and_inputs(model: str, inputs: Sequence[str], *, task: str | None = None) -> None:
    """Refuse a model folder that is none, and inputs that are no video, before torch is there."""
    from spikevideoformer.models.folder import read_about
    from spikevideoformer.video.inputs import expand_inputs
    from spikevideoformer.video.sources import VideoError

    made_for = read_about(model)["task"]
    if task not in (None, made_for):
        raise ValueError(f"{model} is made for {made_for}; give a model for {task}")
    found = list(expand_inputs(inputs))
    errors = [error for error in found if isinstance(error, VideoError)]
    if errors and len(errors) == len(found):
        raise errors[0]


# --- svf energy ----------------------------------------------------------------------------------


def _energy_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        metavar="FOLDER|PRESET",
        help="model folder, hub id (owner/name), or a preset with random weights",
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="VIDEO",
        help="what it looks at, as for predict (default: a made clip)",
    )
    parser.add_argument(
        "--frames", type=int, metavar="T", help="frames of a clip (default: the model's, or 8)"
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="input size (default: the model's, for segmentation its crop; or 224)",
    )
    parser.add_argument(
        "--cost",
        type=_path,
        metavar="FILE.yaml",
        help="energies (default: 45 nm)",
    )
    parser.add_argument(
        "--clips",
        type=int,
        default=8,
        metavar="N",
        help="count N clips at most: of N videos taken evenly, or the first windows of fewer "
        "(default 8)",
    )
    parser.add_argument(
        "--no-merge",
        action="store_true",
        help="leave out the merged forms and the ordinary twin, in a quarter of the time",
    )
    parser.add_argument(
        "--growth",
        action="store_true",
        help="count attention alone, spiking and softmax, for 8 to 128 frames",
    )
    parser.add_argument("--csv", type=_path, metavar="FILE", help="write every operation as CSV")
    parser.add_argument(
        "--out", type=_path, metavar="DIR", help="write energy.txt, .json and .csv (and growth.png)"
    )
    parser.add_argument(
        "--html", action="store_true", help="with --out, also energy.html about the first clip"
    )
    _limits_option(parser)
    _json_option(parser)


def _energy(arguments: Namespace) -> int:
    from spikevideoformer.models.config import STRIDE, list_models

    _require_at_least(arguments, frames=1, size=1, clips=1)
    if arguments.size is not None and arguments.size % STRIDE:
        raise ValueError(f"--size is {arguments.size}; give a multiple of {STRIDE}")
    if arguments.html and arguments.out is None:
        raise ValueError("--html writes a page into a folder; give one with --out")
    csv = arguments.csv
    if csv is not None and (csv.is_dir() or not csv.parent.is_dir()):
        raise ValueError(f"--csv {csv} cannot be written; give a file in a folder that exists")
    is_preset = arguments.model in list_models("all") and not Path(arguments.model).exists()
    if arguments.growth:
        for name in ("inputs", "cost", "csv", "html", "frames", "no_merge"):
            if getattr(arguments, name):
                option = "VIDEO" if name == "inputs" else f"--{name.replace('_', '-')}"
                raise ValueError(f"--growth counts attention alone; leave out {option}")
    _refuse_file(arguments.out)
    _require_file(arguments.cost, "--cost a file like configs/energy/45nm.yaml")
    if not is_preset:
        _check_model_and_inputs(arguments.model, arguments.inputs)
    out = None if arguments.out is None else _folder_to_write(arguments.out)
    if arguments.growth:
        return _energy_growth(arguments, is_preset, out)

    import torch

    from spikevideoformer.bench.inputs import lively_model, made_clip
    from spikevideoformer.energy.cost import HOROWITZ_45NM, CostTable
    from spikevideoformer.energy.report import energy_report
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer
    from spikevideoformer.tasks.pose.spec import PoseSpec
    from spikevideoformer.video.spec import ClipSpec

    cost = HOROWITZ_45NM if arguments.cost is None else CostTable.from_yaml(arguments.cost)
    model = None if is_preset else SpikeVideoFormer.from_pretrained(arguments.model)
    spec = _energy_spec(arguments, model)
    height, width = _height_and_width(spec)
    if spec.frames * height * width > LARGEST_COUNT:
        raise ValueError(
            f"T={spec.frames} frames of {height}x{width} are more than can be counted; "
            "lower --frames or --size"
        )
    if arguments.html and not isinstance(spec, ClipSpec):
        raise ValueError("the page about a clip shows classification only; leave out --html")
    if isinstance(spec, PoseSpec) and spec.crop == "person":
        _note("the model was trained on squares around the person; here it sees whole pictures")
    if model is None:
        model = lively_model(arguments.model, frames=spec.frames, size=height)
        rates_from = "of UNTRAINED weights, batch norms set so that neurons fire"
    else:
        rates_from = "of this trained model"
    if not model.config.neuron.spiking:
        rates_from = "none, an ordinary network"
    failures = 0
    if arguments.inputs:
        clips, failures = _clips(arguments, spec)
        rates_from = f"{rates_from}, on {len(clips)} clips of the videos given"
    else:
        made = spec
        if isinstance(made, PoseSpec):  # for events with the picture at which the first one begins
            frames = made.frames + (made.input == "events")
            made = ClipSpec(frames=frames, size=made.size, mean=made.mean, std=made.std)
        clips = [made_clip(made)]
        rates_from += ", on a MADE clip (moving shapes): give videos for rates that mean something"
    compare = not arguments.no_merge and model.config.neuron.spiking
    twin = None
    if compare:  # what it would do does not depend on its weights
        twin = SpikeVideoFormer(
            model.config.ann_twin(),
            task=model.task,
            num_classes=model.num_classes,
            body=model.body,
        ).eval()
    report = energy_report(
        model,
        torch.stack([_energy_input(clip, spec) for clip in clips]),
        cost=cost,
        merge=compare,
        twin=twin,
        rates_from=rates_from,
        tell=_note,
    )
    if csv is not None:
        write_text(csv, report.to_csv())
    if out is not None:
        write_text(out / "energy.txt", f"{report}\n")
        write_text(
            out / "energy.json", json.dumps(report.to_dict(), allow_nan=False, indent=2) + "\n"
        )
        write_text(out / "energy.csv", report.to_csv())
        if arguments.html:
            from spikevideoformer.inference.page import clip_page

            assert isinstance(spec, ClipSpec)  # for classification
            page = clip_page(
                model,
                clips[0],
                spec,
                title=f"{arguments.model}: {clips[0].path.name}",
                about=[("firing rates", rates_from)],
                classes=model.classes or tuple(map(str, range(model.num_classes))),
                energy=report,
            )
            write_text(out / "energy.html", page)
    if arguments.json:
        _print_json(report.to_dict())
    else:
        print(report)
    return SOME_FAILED if failures else DONE


def _energy_spec(arguments: Namespace, model: SpikeVideoFormer | None) -> Spec:
    """How clips are made: as the model says, but for what is given."""
    from spikevideoformer.tasks.pose.spec import PoseSpec
    from spikevideoformer.tasks.segmentation.spec import SegmentationSpec
    from spikevideoformer.video.spec import ClipSpec

    size, frames = arguments.size, arguments.frames
    clip: dict[str, Any] = {"frames": 8, "size": 224}
    given = {"frames": frames, "size": size}
    task = "classification" if model is None else model.task
    if task == "segmentation":
        clip = {"frames": 8, "short_side": None, "crop": (224, 224)}
        given = {"frames": frames, "crop": size and (size, size)}
    if model is not None and model.clip is not None:
        clip = model.clip
    clip = {**clip, **{name: value for name, value in given.items() if value is not None}}
    if task == "pose":
        return PoseSpec.from_dict(clip)
    return (SegmentationSpec if task == "segmentation" else ClipSpec).from_dict(clip)


def _height_and_width(spec: Spec) -> tuple[int, int]:
    from spikevideoformer.tasks.segmentation.spec import SegmentationSpec

    return spec.crop if isinstance(spec, SegmentationSpec) else (spec.size, spec.size)


def _energy_input(clip: Clip, spec: Spec) -> Tensor:
    """What the network sees, ``[T, C, H, W]``: for segmentation the middle crop of the pictures.

    Pictures that the crop does not fit into are enlarged. For pose it is the whole picture.
    """
    from spikevideoformer.data.transforms import eval_transform
    from spikevideoformer.tasks.pose.spec import PoseSpec
    from spikevideoformer.tasks.segmentation.dataset import picture_input
    from spikevideoformer.video.spec import ClipSpec

    if isinstance(spec, ClipSpec):
        return eval_transform(clip.frames, spec)
    if isinstance(spec, PoseSpec):
        return _pose_energy_input(clip, spec)
    (height, width), (h, w) = spec.crop, clip.frames.shape[1:3]
    least = -(-max(height * w, width * h) // max(h, w))  # the crop fits: h/short <= h/height ...
    short = max(spec.short_side or min(h, w), least)
    video = picture_input(clip.frames, replace(spec, short_side=short))
    top, left = ((a - b) // 2 for a, b in zip(video.shape[2:], spec.crop, strict=True))
    return video[..., top : top + height, left : left + width]


def _pose_energy_input(clip: Clip, spec: PoseSpec) -> Tensor:
    """The same for pose; frames of events lie between every n-th picture and the one n later."""
    from spikevideoformer.tasks.pose.dataset import Square, event_input, picture_input

    square = Square.of_picture(*clip.frames.shape[1:3])
    if spec.input != "events":
        return picture_input(clip.frames, square, spec)
    picture_s = (clip.end_s - clip.start_s) / clip.real_frames
    times = [picture_s * i for i in range(len(clip.frames))]
    borders = times[:: (len(times) - 1) // spec.frames]
    return event_input(clip.frames, times, borders, square, spec)


def _clips(arguments: Namespace, spec: Spec) -> tuple[list[Clip], int]:
    """Clips of the videos, evenly taken where there are too many, and how many videos failed."""
    from spikevideoformer.tasks.pose.spec import PoseSpec
    from spikevideoformer.video.frames import VideoError, iter_windows, probe
    from spikevideoformer.video.inputs import expand_inputs
    from spikevideoformer.video.spec import ClipSpec

    found = list(expand_inputs(arguments.inputs))
    errors = [video for video in found if isinstance(video, VideoError)]
    videos = [video for video in found if isinstance(video, str)]
    if len(videos) > arguments.clips:
        _note(f"counting {arguments.clips} of {len(videos)} videos; --clips {len(videos)} for all")
        videos = [videos[i * len(videos) // arguments.clips] for i in range(arguments.clips)]
    share = -(-arguments.clips // max(1, len(videos)))  # windows of each video
    limits = _limits(arguments)
    clips: list[Clip] = []
    for video in videos:
        try:
            if isinstance(spec, ClipSpec):
                cut, short = spec, spec.size
            else:  # frames that follow each other, as in sequences
                rate, frames, short = probe(video, limits=limits).frame_rate_hz, spec.frames, None
                step = spec.step(rate) if isinstance(spec, PoseSpec) else spec.step
                if isinstance(spec, PoseSpec) and spec.input == "events":
                    frames, step = 1 + frames * step, 1  # events are seen between all pictures
                cut = ClipSpec(frames=frames, size=1, frame_rate_hz=rate / step)
            clips += islice(iter_windows(video, cut, resize_short=short, limits=limits), share)
        except VideoError as error:
            errors.append(error)
    if not clips:
        raise errors[0]
    for unread in errors:
        _note_failure(unread)
    return clips[: arguments.clips], len(errors)


def _energy_growth(arguments: Namespace, is_preset: bool, out: Path | None) -> int:
    from spikevideoformer.energy.growth import counted_growth, format_growth, plot_growth
    from spikevideoformer.models.config import STRIDE, preset
    from spikevideoformer.models.spikevideoformer import SpikeVideoFormer

    model = None if is_preset else SpikeVideoFormer.from_pretrained(arguments.model)
    config = preset(arguments.model) if model is None else model.config
    if not config.neuron.spiking:
        raise ValueError(
            f"{arguments.model} is an ordinary network; --growth is of spiking attention (beside "
            "softmax attention of the same shape): give a spiking model"
        )
    spec = _energy_spec(arguments, model)
    rows, columns = (side // STRIDE for side in _height_and_width(spec))
    points = counted_growth(config, tokens_per_frame=rows * columns)
    if out is not None:
        plot_growth(points, out / "growth.png")
    if arguments.json:
        _print_json({"model": arguments.model, "growth": [p.to_dict() for p in points]})
    else:
        print(
            f"attention of {arguments.model}, joint, {rows}x{columns} tokens a frame, V fires 0.2"
        )
        print(format_growth(points))
    return DONE


# --- svf render ----------------------------------------------------------------------------------


def _render_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=_path, required=True, metavar="DIR", help="the data set")
    parser.add_argument(
        "--mocap",
        type=_path,
        metavar="DIR",
        help="folder of BVH files with splits.csv (path,content,style,split); default: motions "
        "that are computed",
    )
    parser.add_argument(
        "--puppets",
        type=int,
        metavar="N",
        help="instead, N clips of two puppets who shake hands, hug, kick, point, punch or push, "
        "and a tenth as many for validation: motion of people to learn before one's own clips",
    )
    parser.add_argument(
        "--motions",
        type=int,
        default=20,
        metavar="N",
        help="computed motions of each kind, a fifth of them for validation (default 20)",
    )
    parser.add_argument(
        "--clips-per-motion",
        type=int,
        metavar="N",
        help="clips of each motion, each with its own body, camera and light (default: as many as "
        "fit without overlap)",
    )
    for name, kind, default, what in (
        ("size", int, 64, "height and width in pixels, a multiple of 16"),
        ("frames", int, 32, "pictures of a clip"),
        ("frame-rate-hz", float, 20.0, "pictures per second"),
        ("view-deg", float, 180.0, "the camera stands at most so far beside the front of the body"),
        ("seed", int, 0, "the same seed gives the same files"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{what} ({default})")
    _json_option(parser)


def _render(arguments: Namespace) -> int:
    from spikevideoformer.synth.spec import RenderSpec

    if arguments.puppets is not None:
        return _render_puppets(arguments)
    if arguments.motions < 5:
        raise ValueError(f"--motions is {arguments.motions}; give at least 5, one for validation")
    settings = ("size", "frames", "frame_rate_hz", "view_deg")
    spec = RenderSpec(**{name: getattr(arguments, name) for name in settings})
    _require_at_least(arguments, clips_per_motion=1, seed=0)
    _refuse_file(arguments.out)
    if arguments.mocap is not None:
        _require_file(
            arguments.mocap / "splits.csv", "--mocap a folder of motion capture with a table"
        )

    from spikevideoformer.progress import progress_on_stderr
    from spikevideoformer.synth.motions import ACTIONS, procedural_motions, read_mocap_table
    from spikevideoformer.synth.render import write_motion_clips

    out = _folder_to_write(arguments.out)
    if arguments.mocap is None:
        motions, total = procedural_motions(arguments.motions), arguments.motions * len(ACTIONS)
    else:
        rows = read_mocap_table(arguments.mocap)
        motions, total = (row.load() for row in rows), len(rows)
    with progress_on_stderr("motion") as tell:
        clips = write_motion_clips(
            _told(motions, total, tell),
            out,
            spec=spec,
            seed=arguments.seed,
            clips_per_motion=arguments.clips_per_motion,
        )
    if arguments.json:
        _print_json({"out": str(out), "motions": total, "clips": clips})
    else:
        print(f"{clips} clips of {total} motions, with exact joints: {out}")
    return DONE


def _render_puppets(arguments: Namespace) -> int:
    from spikevideoformer.synth.directions import write_interaction_clips

    parser = argparse.ArgumentParser()
    _render_options(parser)
    others = "mocap motions clips_per_motion size frames frame_rate_hz view_deg".split()
    for name in others:
        if getattr(arguments, name) != parser.get_default(name):
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"--puppets act by themselves, as they are; leave out {option}")
    train, val = arguments.puppets, max(6, arguments.puppets // 10)  # of each action at least one
    _require_at_least(arguments, puppets=6, seed=0)
    out = _folder_to_write(arguments.out)
    write_interaction_clips(out, train=train, val=val, seed=arguments.seed)
    if arguments.json:
        _print_json({"out": str(out), "clips": train + val})
    else:
        print(f"{train + val} clips of puppets: {out}")
    return DONE


def _told(
    motions: Iterator[LabelledMotion], total: int, tell: Callable[[int, int | None], None]
) -> Iterator[LabelledMotion]:
    for number, motion in enumerate(motions):
        tell(number, total)
        yield motion


# --- svf models ----------------------------------------------------------------------------------


def _models_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-classes", type=int, default=400, metavar="K", help="classes to count (default 400)"
    )
    _json_option(parser)


def _models(arguments: Namespace) -> int:
    _require_at_least(arguments, num_classes=1)

    import torch

    from spikevideoformer.models.config import FAMILIES, list_models
    from spikevideoformer.models.spikevideoformer import create_model

    models = {}
    for name in list_models("all"):
        with torch.device("meta"):  # counts without making the weights
            models[name] = create_model(name, num_classes=arguments.num_classes)
    if arguments.json:
        rows = [
            {
                "name": name,
                "family": family,
                "parameters": models[name].num_parameters(),
                "widths": list(models[name].config.widths),
                "depths": list(models[name].config.depths),
                "heads": models[name].config.heads,
            }
            for family in FAMILIES
            for name in list_models(family)
        ]
        _print_json({"num_classes": arguments.num_classes, "models": rows})
        return DONE
    print(f"{'name':<10} {'parameters':>12}  {'widths':<16} {'blocks':<10} heads")
    for family, what in FAMILIES.items():
        print(f"\n{what}")
        for name in list_models(family):
            config, parameters = models[name].config, models[name].num_parameters()
            widths, depths = ("/".join(map(str, v)) for v in (config.widths, config.depths))
            heads = "-" if config.attention == "none" else config.heads
            print(f"{name:<10} {parameters:>12,}  {widths:<16} {depths:<10} {heads}")
    return DONE


VERBS = {
    "demo": Verb(
        does="go the whole way on clips that it makes: train, evaluate, predict, report",
        example="svf demo --out demo",
        options=_demo_options,
        run=_demo,
    ),
    "train": Verb(
        does="train a model on a folder of videos",
        example="svf train --data demo/clips --model svf_nano --epochs 2 --out runs/first",
        options=_train_options,
        run=_train,
    ),
    "eval": Verb(
        does="measure a model on a folder of videos",
        example="svf eval --model demo/run/model --data demo/clips --split val",
        options=_eval_options,
        run=_eval,
    ),
    "predict": Verb(
        does="recognise what happens in videos, what is where, or the pose of a body",
        example="svf predict --model demo/run/model demo/clips/val --json",
        options=_predict_options,
        run=_predict,
    ),
    "convert": Verb(
        does="turn a published checkpoint into a model folder",
        example="svf convert metaspikformer.pth --attention joint_hamming --out model",
        options=_convert_options,
        run=_convert,
    ),
    "bench": Verb(
        does="measure speed and memory beside other implementations",
        example="svf bench --quick",
        options=_bench_options,
        run=_bench,
    ),
    "theory": Verb(
        does="show Proposition 3.1 in numbers: what Hamming similarity keeps of the cosine",
        example="svf theory --out svf-theory --model demo/run/model demo/clips/val/up",
        options=_theory_options,
        run=_theory,
    ),
    "energy": Verb(
        does="count every operation and what it costs, by several conventions",
        example="svf energy --model demo/run/model demo/clips/val",
        options=_energy_options,
        run=_energy,
    ),
    "render": Verb(
        does="turn motions into videos with exact joints, to learn pose or actions from",
        example="svf render --out svf-motions --motions 5",
        options=_render_options,
        run=_render,
    ),
    "models": Verb(
        does="list the models that can be trained",
        example="svf models",
        options=_models_options,
        run=_models,
    ),
}
