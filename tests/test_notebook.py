"""The notebook of the docs, executed in a real kernel."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FORMAT: Any = nbformat  # without types
NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"
INTERRUPTED = """
import nas
try:
    nas.search(dataset="mnist-5k", trials=200, mlflow="off")
except KeyboardInterrupt as error:
    print("stopped:", error)
"""


def outputs(cell: Any, kind: str) -> list[str]:
    """The outputs of a cell in a format."""
    return [str(one["data"][kind]) for one in cell.outputs if kind in one.get("data", {})]


def client(notebook: Any, folder: Path) -> NotebookClient:
    return NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}})


@pytest.mark.faults
def test_the_notebook_runs_and_shows_the_result(tmp_path: Path) -> None:
    shutil.copy(NOTEBOOK, tmp_path)
    notebook = FORMAT.read(tmp_path / NOTEBOOK.name, as_version=4)
    client(notebook, tmp_path).execute()
    search, resumed, network = [cell for cell in notebook.cells if cell.cell_type == "code"]
    progress, result = outputs(search, "text/html")
    assert progress.count("searching:") >= 12
    assert "test images correctly" in result
    assert result.count("<img") >= 3
    assert "resuming: " in outputs(resumed, "text/html")[0]
    assert "torch.Size([2, 10])" in outputs(network, "text/plain")[0]


@pytest.mark.faults
def test_an_interrupted_kernel_ends_the_search_in_order(tmp_path: Path) -> None:
    notebook = FORMAT.v4.new_notebook(cells=[FORMAT.v4.new_code_cell(INTERRUPTED)])
    running = client(notebook, tmp_path)

    def interrupt() -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until and not any(
            b'"trial":' in journal.read_bytes() for journal in tmp_path.glob("runs/*/journal.jsonl")
        ):
            time.sleep(0.1)
        kernel: Any = running.km
        os.kill(kernel.provisioner.pid, signal.SIGINT)  # what the button does

    thread = threading.Thread(target=interrupt)
    thread.start()
    running.execute()
    thread.join()
    assert "stopped:" in "".join(str(one.get("text", "")) for one in notebook.cells[0].outputs)
    [journal] = tmp_path.glob("runs/*/journal.jsonl")
    assert b'"ended":' in journal.read_bytes()
