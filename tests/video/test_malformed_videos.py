"""Hundreds of damaged files: each is read whole or refused in one line, quickly and never short."""

import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import av
import pytest

from spikevideoformer.video.frames import VideoError, check_decodes

from .malformed import FRAMES, SOURCES, Malformed, write_malformed, write_sources

EACH = 60  # damaged copies of each of the nine sound files; with the oddities 601 files

# Reads file after file and reports each in a line, so that whoever watches sees a crash or a hang.
READER = textwrap.dedent(
    """
    import sys, time
    from spikevideoformer.video.clip import ClipSpec
    from spikevideoformer.video.frames import VideoError, check_decodes, iter_windows, read_clip

    spec = ClipSpec(frames=4, size=16)
    for path in sys.stdin.read().splitlines():
        begin = time.perf_counter()
        outcomes = []
        for read in (
            lambda: check_decodes(path).decoded_frames,
            lambda: len(read_clip(path, spec).frames),
            lambda: len(list(iter_windows(path, spec, window_s=0.5))),
        ):
            try:
                outcomes.append(str(read()))
            except VideoError as error:
                outcomes.append("E" + str(error))
            except Exception as error:
                outcomes.append("X" + repr(error))
        seconds = time.perf_counter() - begin
        print(path, *[o.encode().hex() for o in outcomes], seconds, sep="|", flush=True)
    """
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Malformed]:
    return write_malformed(tmp_path_factory.mktemp("malformed"), each=EACH)


def _shown_by_its_own_account(path: Path) -> int:
    """Pictures that an mp4 shows by its sample table and edit list, counted without decoding."""
    with av.logging.Capture(), av.open(path) as container:
        packets = container.demux(container.streams.video[0])
        return sum(packet.size > 0 and not packet.is_discard for packet in packets)


def test_sound_sources_decode_fully(tmp_path: Path) -> None:
    write_sources(tmp_path)
    for name in SOURCES:
        assert check_decodes(tmp_path / name).decoded_frames == FRAMES, name


@pytest.mark.processes
@pytest.mark.timeout(60)
def test_damaged_files_are_read_whole_or_refused(files: list[Malformed]) -> None:
    assert len(files) >= 300
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", READER],
        input="\n".join(str(file.path) for file in files),
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stderr == "", "FFmpeg's messages must not reach the user"
    lines = run.stdout.splitlines()
    assert len(lines) == len(files)

    kinds: Counter[str] = Counter()
    for file, line in zip(files, lines, strict=True):
        path, *codes, seconds = line.split("|")
        told = f"{file.path.name} ({file.damage})"
        assert path == str(file.path), told
        assert float(seconds) < 10, f"{told}: {seconds} s"
        outcomes = [bytes.fromhex(code).decode() for code in codes]
        for outcome in outcomes:
            assert not outcome.startswith("X"), f"{told}: {outcome}"
            if outcome.startswith("E"):
                assert outcome.startswith(f"E{path}: "), told
                assert len(outcome) > len(path) + 8, f"{told}: no reason"
                assert "\n" not in outcome, told
        decoded, clip, _ = outcomes
        # One verdict: a clip of the whole file is refused exactly when the full check refuses.
        assert decoded.startswith("E") == clip.startswith("E"), f"{told}: {outcomes}"
        if decoded.startswith("E"):
            kinds["refused"] += 1
        elif int(decoded) == FRAMES:
            kinds["whole"] += 1
        else:
            # A flipped bit in an mp4's clock or edit list makes a file that consistently says
            # "show fewer pictures", as a trimmed recording does. That, and only that, is believed:
            # what is decoded is every picture that the (damaged) header says is to be shown.
            assert file.source.endswith(".mp4"), f"{told}: {decoded} of {FRAMES} frames"
            assert "flipped" in file.damage or "noise" in file.damage, told
            assert int(decoded) == _shown_by_its_own_account(file.path), told
            kinds["trimmed by its header"] += 1
    assert kinds["refused"] > 200, kinds
    assert kinds["whole"] > 50, kinds  # damage to padding or metadata leaves a sound video
    assert kinds["trimmed by its header"] <= len(files) // 100, kinds


@pytest.mark.parametrize("source", list(SOURCES))
def test_every_cut_is_noticed(tmp_path: Path, source: str) -> None:
    """A file that loses its tail is never a shorter video, wherever the cut is."""
    write_sources(tmp_path)
    data = (tmp_path / source).read_bytes()
    broken = tmp_path / f"cut.{source.rpartition('.')[2]}"
    for keep in range(1, len(data), max(1, len(data) // 40)):
        broken.write_bytes(data[:keep])
        try:
            decoded = check_decodes(broken).decoded_frames
        except VideoError:
            continue
        assert decoded == FRAMES, f"cut to {keep} of {len(data)} bytes"
