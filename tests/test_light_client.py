"""A device installs deploy/client.txt and no more: what it names is enough, and what we pin."""

import json
import pickle
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from benchmarks.client_process import message_of
from tests.e2e.conftest import bmsfed

ROOT = Path(__file__).resolve().parents[1]

#: Answers an enrolment and a training message, where some modules cannot be imported.
CLIENT = """
import json, pickle, sys
from importlib.abc import MetaPathFinder
from types import SimpleNamespace

missing, shard, messages = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Missing())
from client_app import app
from strategies.local_grid import act_as_a_run
act_as_a_run()
context = SimpleNamespace(node_config={"client-id": "a", "data-dir": shard})
with open(messages, "rb") as file:
    enrol, train = pickle.load(file)
assert not app.enrol(enrol, context).has_error()
reply = app.train(train, context)
assert not reply.has_error(), reply.error.reason
print(json.dumps(sorted(reply.content.array_records["arrays"])))
"""


def named() -> dict[str, str]:
    """Requirements of deploy/client.txt by name."""
    lines = (ROOT / "deploy/client.txt").read_text().splitlines()
    found = [line for line in lines if line and not line.startswith("#")]
    return {re.split(r"[<>=~]", line)[0]: line for line in found}


def closure(names: set[str]) -> set[str]:
    """Everything that is installed with some distributions, without their extras."""
    found: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        try:
            needed = requires(name) or []
        except PackageNotFoundError:  # of another platform
            continue
        plain = (one for one in needed if "extra ==" not in one)
        waiting |= {re.split(r"[ <>=~!;(\[]", one)[0] for one in plain}
    return found


def test_what_a_device_installs_is_what_the_app_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {re.split(r"[<>=~\[]", one)[0]: one for one in project["dependencies"]}
    assert {n: one.replace("[simulation]", "") for n, one in pinned.items() if n in named()} == (
        named()
    )


def test_a_client_needs_nothing_else(tmp_path: Path) -> None:
    """It trains BMSFed's round where all other packages of this environment are missing."""
    bmsfed("data", "split", "cg-digits", "--clients", "40", "--out", str(tmp_path / "shards"))
    messages = tmp_path / "messages"
    messages.write_bytes(pickle.dumps([message_of("enrol"), message_of("train")]))
    there = closure(set(named()))
    missing = [
        module
        for module, names in packages_distributions().items()
        if not {n.lower().replace("_", "-") for n in names} & {*there, "bmsfed"}
    ]
    assert {"ray", "torchvision", "sklearn", "matplotlib", "scipy"} <= set(missing)
    shard = str(tmp_path / "shards/client-00")
    command = [sys.executable, "-c", CLIENT, json.dumps(missing), shard, str(messages)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "head.bias" in json.loads(done.stdout.splitlines()[-1])
