"""Sweeps: methods on data sets, partitions, settings and seeds, from one YAML file."""

from bmsfed_app.sweeps.spec import SweepError, SweepFile, is_sweep, read_sweep, sweep_names
from bmsfed_app.sweeps.sweep import Sweep, SweepRun, alike_keys, load_sweep, run_key

__all__ = [
    "Sweep",
    "SweepError",
    "SweepFile",
    "SweepRun",
    "alike_keys",
    "is_sweep",
    "load_sweep",
    "read_sweep",
    "run_key",
    "sweep_names",
]
