"""The command with hostile names, with several of it in one folder, and with very many inputs."""

import json
import os
import re
import subprocess
from pathlib import Path

from workshop import COMMAND, Tally, Workshop

from spikevideoformer.video.frames import check_decodes

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
NAMES: tuple[bytes, ...] = (
    *(b"-n", b"--json", b"--", b"-", b"~", b"~root", b"$(touch hacked)", b"`id`", b"; ls"),
    *(b"|cat", b"a\nb", b"\n", b"\r\n", b"\t", b"\x1b[31mred", b"\x1b]0;title\x07", b"\x07"),
    *(b"\x7f", b"\x08", b"\xff\xfe", b"\x80", b"caf\xe9", b"\xed\xa0\x80", "\u00e9".encode()),
    *("e\u0301".encode(), "火".encode(), "\u202egpm".encode(), "\u2028".encode()),
    *("\x85".encode(), "\U0001f600".encode(), b"%s%n", b"{0}", b"{path}", b"\\", b"C:\\x"),
    *(b"'", b'"', b"a'b\"c", b"<b>", b"&amp;", b"?*[a]", b"[", b"#", b"http:", b"file:x"),
    *(b"pipe:0", b"concat:a", b"subfile,,start,0,end,9,,:a", b"val", b"train", b"con"),
    *(b"nul", b" ", b"a ", b".hidden", b"...", b"a" * 250, "火".encode() * 83, b"%04d", b"0"),
    *(b"=", b",", b"a,b"),
)  # fmt: skip


def names(shop: Workshop) -> Tally:
    """Files of hostile names: each is answered or refused under its name, escaped in a terminal."""
    tally, model = Tally(), shop.model()
    folder, content = os.fsencode(shop.folder / "names"), shop.clip.read_bytes()
    os.mkdir(folder)
    chosen = NAMES[: shop.count(len(NAMES))]
    for name in chosen:
        with open(folder + b"/" + name + b".mp4", "wb") as file:
            file.write(content)
    before = set(os.listdir(shop.folder))
    done = shop.svf("predict", "--model", model, "--json", shop.folder / "names", cwd=shop.folder)
    if wrong := sorted(set(os.listdir(shop.folder)) - before):
        tally.wrong.append(f"a name was executed: {wrong}")
    if CONTROL.search(done.stderr):
        tally.wrong.append("control characters reach the terminal")
    answered = [json.loads(line) for line in done.stdout.splitlines()]
    paths = {os.fsencode(answer["path"]) for answer in answered}
    hidden = {name for name in chosen if name.startswith(b".")}
    for name in chosen:
        path = folder + b"/" + name + b".mp4"
        if path in paths:
            tally.right += 1
        elif name in hidden:
            tally.refused += 1  # hidden files are not part of a folder
        else:
            tally.wrong.append(f"{name!r}: no answer: {done.stderr[-200:]!r}")
    text = shop.svf(
        "predict", "--model", model, "--out", shop.folder / "out", shop.folder / "names"
    )
    if CONTROL.search(text.stdout + text.stderr) or text.returncode not in (0, 1):
        tally.wrong.append(f"as text: status {text.returncode}, {text.stderr[-200:]!r}")
    written = len(list((shop.folder / "out").glob("*.mp4")))
    told = sum(line.startswith("svf: ") for line in text.stderr.splitlines())
    if written + told + len(hidden) < len(chosen):
        tally.wrong.append(f"{written} videos written, {told} refused, of {len(chosen)}")
    tally.notes.append(f"{written} of {len(chosen)} drawn, {told} lines of refusal")
    return tally


def together(shop: Workshop) -> Tally:
    """Two trainings and four predictions into one folder: whole outputs, or one line."""
    tally, model = Tally(), shop.model()
    run = [
        "--data",
        shop.clips,
        "--out",
        shop.folder / "run",
        "--epochs",
        "4",
        "--model",
        "svf_nano",
    ]
    small = ["--frames", "2", "--size", "32"]
    seen = ["predict", "--model", model, "--out", shop.folder / "seen", *_clips(shop)]
    started = [_start(shop, "train", *run, *small) for _ in range(2)]
    started += [_start(shop, *seen) for _ in range(4)]
    ended = [(p, *p.communicate(timeout=300)) for p in started]
    for number, (process, out, err) in enumerate(ended):
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        tally.judge_command(f"{'training' if number < 2 else 'prediction'} {number}", done)
    if sorted(p.returncode for p, *_ in ended[:2]) != [0, 2]:
        tally.wrong.append("of two trainings not one was refused")
    if not any(p.returncode == 0 for p, *_ in ended[2:]):
        tally.wrong.append("no prediction was made")
    for path in (shop.folder / "seen").glob("*.mp4"):
        with tally.case(path.name):
            check_decodes(path)
    return tally


def many(shop: Workshop) -> Tally:
    """10,000 small inputs in one call: all answered, and memory stays flat."""
    tally, count, folder = Tally(), shop.count(10_000), shop.folder / "many"
    folder.mkdir()
    for number in range(count):
        os.link(shop.clip, folder / f"{number:05}.mp4")
    process = _start(shop, "predict", "--model", shop.model(), "--json", folder)
    assert process.stdout is not None
    answers, early_mb, late_mb = 0, 0.0, 0.0
    for line in process.stdout:
        answers += "path" in json.loads(line)
        if answers == max(1, count // 10):
            early_mb = _resident_mb(process.pid)
        if answers == max(1, count * 99 // 100):
            late_mb = _resident_mb(process.pid)
    process.wait()
    tally.right += answers
    if answers != count or process.returncode:
        tally.wrong.append(f"{answers} of {count} answered, status {process.returncode}")
    if late_mb > early_mb + 50:
        tally.wrong.append(f"memory grew from {early_mb:.0f} to {late_mb:.0f} MB")
    tally.notes.append(f"{early_mb:.0f} MB after a tenth, {late_mb:.0f} MB at the end")
    return tally


def _clips(shop: Workshop) -> list[Path]:
    return sorted((shop.clips / "train" / "left").glob("*.mp4"))


def _start(shop: Workshop, *words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if words[0] != "predict" or "--json" not in words else None,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _resident_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024
