"""What a run loads before its first round is over: nothing that it does not use."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: What others of our commands, data sets or encoders need, and torch's compiler.
NOT_NEEDED = {
    *("matplotlib", "ray", "sklearn", "scipy", "pandas", "pyarrow", "PIL"),
    *("torchvision", "torchaudio", "transformers", "torch._dynamo", "torch._inductor", "sympy"),
}

RUN = """
import json, sys
from bmsfed_app.cli.main import cli

small = ["--clients", "2", "--per-round", "2", "--rounds", "1", "--set", "data_fraction=0.03"]
cli(["run", "cg-digits", *small, "--out", sys.argv[1]], standalone_mode=False)
print(json.dumps(list(sys.modules)))
"""


def test_a_run_loads_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    """A small run, of which the engine is chosen by its work."""
    command = [sys.executable, "-c", RUN, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "engine: inline" in done.stdout
    assert NOT_NEEDED.isdisjoint(json.loads(done.stdout.splitlines()[-1]))
    assert (tmp_path / "run/checkpoint.safetensors").exists()
