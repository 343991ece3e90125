"""The notebook runs from the first cell to the last."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip(
    "nbformat", reason="the notebook's format is read by nbformat, a development package"
)
nbclient = pytest.importorskip("nbclient", reason="notebooks are run by nbclient, a development package")

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent.parent / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
# The client of Jupyter's kernels looks for an event loop in a way that Python deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore:Proactor")
def test_it_runs_and_holds_no_output(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code), "clear the outputs before a commit"
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "ms predicted" in printed
    assert "ms measured" in printed
