"""The Triton kernels, in processes of their own: the interpreter is chosen when they are defined.

The cases are in triton_cases.py; see there.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton (pip install triton)"
)


def _run_cases(**environment: str) -> None:
    cases = Path(__file__).with_name("triton_cases.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(cases)]
    run = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


def test_in_the_interpreter() -> None:
    _run_cases(TRITON_INTERPRET="1")


@pytest.mark.gpu
def test_on_the_gpu() -> None:
    _run_cases(TRITON_INTERPRET="0")
