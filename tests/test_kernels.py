"""The kernels of a GPU compute what PyTorch does; test_gpu.py asks a GPU, this asks Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nas.training import modules

pytest.importorskip("triton", reason="there is no Triton for this system")


@pytest.mark.faults  # slow
def test_they_compute_what_pytorch_does() -> None:
    """In a process of its own: whether Triton compiles or interprets is decided when it is imported."""
    file = Path(__file__).with_name("interpreted.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="here they work")
def test_where_they_do_not_work_the_reason_is_one_line() -> None:
    """As on a machine whose GPU, driver or compiler Triton cannot use."""
    kernels, reason = modules.gpu_kernels(torch.device("cuda", 0))
    assert kernels is None
    assert reason
    assert "\n" not in reason
    assert modules.gpu_kernels(torch.device("cpu")) == (None, "")
