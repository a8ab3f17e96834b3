"""Sweeps: methods on data sets, partitions, settings and seeds, from one YAML file."""

from bmsfed_app.sweeps.paper import PaperCell, paper_names, paper_values
from bmsfed_app.sweeps.spec import SweepError, SweepFile, read_sweep, sweep_names
from bmsfed_app.sweeps.sweep import Sweep, SweepRun, load_sweep, run_key

__all__ = [
    "PaperCell",
    "Sweep",
    "SweepError",
    "SweepFile",
    "SweepRun",
    "load_sweep",
    "paper_names",
    "paper_values",
    "read_sweep",
    "run_key",
    "sweep_names",
]
