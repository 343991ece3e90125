"""The notebook runs from the first cell to the last: on small images, and in a kernel as it is (``--long``)."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from long_runs import amount
from stand_ins import small_images

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent.parent / "examples").glob("*.ipynb"))

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


@every_notebook
def test_its_cells_run_and_hold_no_output(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code), "clear the outputs before a commit"
    monkeypatch.setattr("cars_hw.data.sources._fashion_mini", lambda: small_images(1))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, cell in enumerate(code, start=1):
        # A magic command of IPython is a syntax error here.
        tree = ast.parse("".join(cell["source"]))
        exec(compile(tree, f"{path.name}, cell {number}", "exec", dont_inherit=True), names)
    printed = capsys.readouterr().out
    assert "ms predicted" in printed
    assert "ms measured" in printed
    # PyTorch may make a folder of its own.
    (made,) = (one for one in tmp_path.iterdir() if one.name != "torchinductor_root")
    assert (made / "run" / "report.html").is_file()


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
@every_notebook
# The client of Jupyter's kernels looks for an event loop in a way that Python deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore:Proactor")
def test_it_runs_in_a_kernel(path: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip(
        "nbformat", reason="the notebook's format is read by nbformat, a development package"
    )
    nbclient = pytest.importorskip("nbclient", reason="notebooks are run by nbclient, a development package")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "ms predicted" in printed
    assert "ms measured" in printed
