"""One run of a sweep, whose folder may be another's."""

import json
from pathlib import Path

import pytest
import yaml

from bmsfed_app.cli.simulate import check_experiment
from bmsfed_app.cli.sweep.work import Outcome, run_one
from bmsfed_app.sweeps import load_sweep
from server_app.run_folder import RunFolder


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_a_run_that_auto_may_be_and_another_sweep_completed_is_complete(
    precision: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"methods": ["fedavg"], "datasets": ["cg-digits"]}))
    auto, exact = (
        load_sweep(str(file), overrides={"precision": p}).runs[0] for p in ("auto", precision)
    )
    config, _ = check_experiment(exact.config)
    folder = RunFolder.create(exact.folder(tmp_path), config).path
    (folder / "summary.json").write_text(json.dumps({"complete": True, "rounds": 15}))
    before = {f: f.read_bytes() for f in folder.iterdir()}
    values = auto.config.model_dump() | {"engine": "inline"}
    assert auto.folder(tmp_path) == folder
    assert run_one(values, folder, "bmsfed sweep") == Outcome("complete")
    assert {f: f.read_bytes() for f in folder.iterdir()} == before
    for other in ({"lr": 0.5}, {"precision": "bf16" if precision == "float32" else "float32"}):
        state, why = run_one(values | other, folder, "bmsfed sweep")
        assert state == "failed"
        assert "is a run of another configuration" in why
