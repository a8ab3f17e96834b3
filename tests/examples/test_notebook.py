"""The notebook runs from its first to its last cell and leaves a figure."""

import json
from pathlib import Path

import pytest
from PIL import Image

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples/zero_to_figure.ipynb"


@pytest.mark.e2e
def test_the_notebook_runs_to_its_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDS", "1")
    monkeypatch.setenv("BMSFED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    book = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        book, timeout=None, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    assert Image.open(tmp_path / "runs/notebook/figure.png").size == (1500, 540)
    last = [cell for cell in book.cells if cell.cell_type == "code"][-1]
    assert any("image/png" in output.get("data", {}) for output in last.outputs)
    rows = (tmp_path / "runs/notebook/bmsfed/history.jsonl").read_text().splitlines()
    assert [json.loads(r)["round"] for r in rows if json.loads(r)["kind"] == "round"] == [0, 1]


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
