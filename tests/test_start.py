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
from pathlib import Path
from benchmarks.common import client
from bmsfed_app.cli.main import _wanted
from bmsfed_app.cli.simulate import check_experiment, check_machine
from server_app.experiment import run_experiment
from server_app.run_folder import RunFolder
from strategies.testing import FakeGrid

given = {"clients": 2, "per_round": 2, "rounds": 1, "data_fraction": 0.03}
config = _wanted("cg-digits", given, None)
check_machine(config)
account = config.check_data()
folder = RunFolder.create(Path(sys.argv[1]), check_experiment(config))
folder.record_data(account)
run_experiment(FakeGrid({str(n): client(n, 2) for n in range(2)}), folder)
print(json.dumps(list(sys.modules)))
"""


def test_a_run_loads_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert NOT_NEEDED.isdisjoint(json.loads(done.stdout.splitlines()[-1]))
    assert (tmp_path / "run/checkpoint.safetensors").exists()
