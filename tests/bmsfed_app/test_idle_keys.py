"""Keys that do nothing: said of a user's own; those of shipped files are there to be used."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bmsfed_app.cli.main import main
from bmsfed_app.config import idle_notes, load_config

BOTH = {"whole_share": 0.5, "subsets": [["gray"]]}


def notes(source: str, **overrides: Any) -> list[str]:
    return idle_notes(load_config(source, overrides), source, overrides)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({}, []),  # conf/cg-digits.yaml has an alpha, for those who ask for dirichlet
        ({"alpha": 0.1}, ["note: alpha does nothing with partition: iid (dirichlet reads it)"]),
        ({"alpha": 0.1, "partition": "dirichlet"}, []),
        (
            {"partition": "dirichlet", "sigma": 2, "classes_per_client": 3},
            [
                "note: sigma does nothing with partition: dirichlet (quantity reads it)",
                "note: classes_per_client does nothing with partition: dirichlet "
                "(pathological reads it)",
            ],
        ),
        (
            {"partition_file": "sites.csv"},
            ["note: partition_file does nothing with partition: iid (file reads it)"],
        ),
        (
            {"partition": "dirichlet", "method": "fedogm", "alpha": 0.4},
            ["note: alpha is the experiment's, fedogm's own is methods.fedogm.alpha"],
        ),
        ({"method": "fedogm", "methods.fedogm.alpha": 0.4}, []),
        (BOTH, []),
        (
            BOTH | {"whole_share": 1.0},
            ["note: subsets does nothing with whole_share: 1; lower whole_share"],
        ),
    ],
)
def test_what_is_given_besides(overrides: dict[str, Any], says: list[str]) -> None:
    assert notes("cg-digits", **overrides) == says
    shipped = Path(__file__).resolve().parents[2] / "conf" / "cg-digits.yaml"
    assert notes(str(shipped), **overrides) == says


def test_a_precision_that_is_not_fast_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    able: dict[str, Any] = {"avx512_f": True, "avx512_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for precision in ("float32", "auto"):
        assert notes("cg-digits", precision=precision, device="cpu") == []
    says = "note: precision: tf32 does nothing on a CPU; it is of GPUs from Ampere on"
    assert notes("cg-digits", precision="tf32", device="cpu") == [says]
    [says] = notes("cg-digits", precision="bf16", device="cpu")
    assert says.startswith("note: precision: bf16 is slower than float32 on this machine")
    able["avx512_bf16"] = True
    assert notes("cg-digits", precision="bf16", device="cpu") == []


def test_what_a_users_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: cg-digits\nsigma: 2\n")
    says = "note: sigma does nothing with partition: iid (quantity reads it)"
    assert notes(str(file)) == [says]
    assert notes(str(file), partition="quantity") == []
    out = str(tmp_path / "shards")
    monkeypatch.setattr(
        sys, "argv", ["bmsfed", "data", "split", str(file), "--clients", "2", "--out", out]
    )
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out.splitlines()[0] == says
