"""CONTRIBUTING's examples, together: they register themselves, and a federation runs on them."""

import os
import re
import subprocess
import sys
from pathlib import Path

from bmsfed_app.config import ExperimentConfig
from bmsfed_app.plugins import REGISTRIES, registry

ROOT = Path(__file__).resolve().parents[1]

#: Runs in a process of its own: what the examples register must not reach other tests.
USE = """
import json, sys
from pathlib import Path
from typer.testing import CliRunner

from bmsfed_app.engine import InlineGrid
from client_app.app import app
from bmsfed_app.config import load_config
from bmsfed_app.record.run import read_run
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from strategies import FedAvg, Task, Orders, Update
from strategies.federation.wire import Encoder, pack_task, unpack_task

config = load_config("cg-digits", {
    "method": "round-robin", "encoders": {"gray": "pooled"}, "callbacks": {"norms": {}},
    "partition": "blocks", "partition_settings": {"block": 7}, "schedule": "warm-up",
    "clients": 4, "per_round": 2, "rounds": 3, "data_fraction": 0.1, "connect_timeout": 600,
    "decay_from": 1.0, "metrics": ["brier"], "optimizer": {"name": "lookahead", "every": 2},
})
folder = RunFolder.create(Path(sys.argv[1]), config)
run_experiment(InlineGrid(app, 4), folder)

found = read_run(folder.path)
turns = [json.loads(line) for line in folder.selection.read_text().splitlines()]
assert [(t["round"], t["turn"]) for t in turns] == [(1, 0), (1, 1), (2, 2), (2, 3), (3, 4), (3, 5)]
assert turns[0]["client"] == turns[4]["client"]
rows = [json.loads(line) for line in folder.history.read_text().splitlines()]
rates = [row["lr"] / config.lr for row in rows if row["kind"] == "round" and row["round"]]
assert [round(rate, 6) for rate in rates] == [0.1, 1.0, 1.0], rates
assert all(value > 0 for _, value in found.values("norm", "gray"))
assert found.metric("norm").label("gray") == "norm of gray"
assert config.division().describe()
assert all(0 <= value <= 2 for _, value in found.values("brier"))
assert found.metric("brier").lower_is_better
assert {"lookahead", "brier", "norms"} <= {p["name"] for p in found.info.plugins}
done = CliRunner().invoke(cli, ["last", str(folder.path)])
assert float(done.output) == found.values("accuracy")[-1][1], done.output

model = {"encoders.a.w": np.zeros(2), "head.bias": np.zeros(1)}
updates = [
    Update(c, ("a",), n, {k: v + n for k, v in model.items()}) for c, n in (("x", 1), ("y", 3))
]
strategy = EqualHead(2)
strategy.state.arrays = model
new = strategy.aggregate_fit(1, updates)
assert new["head.bias"].tolist() == [2.0] and new["encoders.a.w"].tolist() == [2.5, 2.5]

task = Task(Orders("train", ("a",)), {"w": np.ones(9, np.float32)})
content = pack_task(task, encode=Encoder(HALF))
assert len(content.array_records["arrays"]["w"].data) == 18
assert unpack_task(content).arrays["w"].tolist() == [1.0] * 9
print("all used")
"""


def test_the_examples_work_together(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) == 10
    script = tmp_path / "examples.py"
    script.write_text("\n".join([*blocks, USE]))
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.stdout.endswith("all used\n"), done.stderr[-3000:]


def test_every_registry_stands_in_the_table() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    shown = re.findall(r"^\| [^|]+ \| `(\w+)` \| `([^`]+)` \| `([^`]+)` \| `(\w+)` \|$", text, re.M)
    there = {(where.partition(":")[2], registry(kind).group) for kind, where in REGISTRIES.items()}
    assert {(name, group) for name, _, group, _ in shown} == there
    assert {key for *_, key in shown} <= set(ExperimentConfig.model_fields)
    assert all((ROOT / folder).exists() for _, folder, _, _ in shown)


def test_what_it_links_to_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
