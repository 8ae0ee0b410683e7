"""The Triton kernels, in processes of their own: the interpreter is chosen when they are defined.

The cases are in the files below; see there.
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
TESTS = Path(__file__).parents[1]
each_file = pytest.mark.parametrize(
    "cases", ["ops/triton_cases.py", "ops/triton_int8_cases.py", "deploy/triton_cases.py"]
)


def _run_cases(cases: str, **environment: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        str(TESTS / cases),
    ]
    run = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=TESTS.parent,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


@each_file
def test_in_the_interpreter(cases: str) -> None:
    _run_cases(cases, TRITON_INTERPRET="1")


@pytest.mark.gpu
@each_file
def test_on_the_gpu(cases: str) -> None:
    _run_cases(cases, TRITON_INTERPRET="0")
