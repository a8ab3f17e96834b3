"""The picture of a partition: readable for few clients and for many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from bmsfed_app.report import partition_figure
from bmsfed_app.report.partition_figure import draw_partition


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, before they became PNGs."""
    figures: list[Figure] = []
    png = partition_figure.png

    def keep(figure: Figure) -> bytes:
        figures.append(figure)
        return png(figure)

    monkeypatch.setattr(partition_figure, "png", keep)
    return figures


def draw(clients: int, classes: int, folder: Path) -> np.ndarray:
    counts = np.arange(clients * classes).reshape(clients, classes) % 7
    names = [f"client-{i}" for i in range(clients)]
    held = [("sound",) if i % 3 == 0 else ("touch", "sound") for i in range(clients)]
    labels = [f"class {i}" for i in range(classes)]
    draw_partition(counts, names, held, labels, folder / "out.png", heading="some $data$")
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")
    return counts


def test_bars_add_up_to_the_counts(tmp_path: Path, drawn: list[Figure]) -> None:
    counts = draw(5, 3, tmp_path)
    left, right = drawn[0].axes
    bars: list[Any] = list(left.patches)
    found = np.array([[b.get_x(), b.get_width(), b.get_y()] for b in bars]).reshape(3, 5, 3)
    np.testing.assert_allclose(found[..., 1].T, counts)
    np.testing.assert_allclose(found[..., 0].T, np.cumsum(counts, 1) - counts)
    marks = {(round(m.get_x() + 0.35), round(m.get_y() + 0.35)) for m in right.patches}  # type: ignore[attr-defined]
    assert marks == {(0, row) for row in range(5)} | {(1, row) for row in (1, 2, 4)}
    assert [t.get_text() for t in right.get_xticklabels()] == ["sound", "touch"]
    assert left.get_title(loc="left") == "some $data$"


@pytest.mark.parametrize(("clients", "classes"), [(2, 40), (100, 10)])
def test_many_clients_or_classes_are_a_heat_map(
    tmp_path: Path, drawn: list[Figure], clients: int, classes: int
) -> None:
    counts = draw(clients, classes, tmp_path)
    left = drawn[0].axes[0]
    shown: Any = left.images[0].get_array()
    np.testing.assert_array_equal(shown.filled(0), counts)
    assert len(left.get_yticks()) <= 50
    # Names are in points, rows in inches: no name may reach into the next.
    per_row = left.get_window_extent().height / drawn[0].dpi * 72 / clients
    step = -(-clients // 50)
    assert per_row * step > 8


def test_the_style_is_left_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    draw(2, 2, tmp_path)
    assert dict(matplotlib.rcParams) == before
