"""The notebook runs from top to bottom, as somebody without data would run it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("lightning")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "training" / "quickstart.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_on_rooms_that_it_renders(tmp_path: Path) -> None:
    # A copy of what it needs, so that a run does not leave its results in the checkout.
    for name in ("training", "mono_depth_ros", "models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    notebook = nbformat.read(tmp_path / "training" / "quickstart.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path / "training")}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    text = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "shipped abs_rel" in text and "trained abs_rel" in text
    assert (tmp_path / "runs" / "quickstart" / "model.onnx").is_file()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3


def test_the_notebook_is_committed_without_results() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    nbformat.validate(notebook)
