"""The experiment's configuration: one YAML file, a few overrides, everything checked.

A file in ``conf/`` is the whole truth of an experiment. Options of ``bmsfed run`` and run-config
keys of ``flwr run`` override what people vary. Unknown keys and impossible values are refused
before anything starts, with the nearest right name and the allowed range.
"""

from bmsfed_app.config.choices import check_packages
from bmsfed_app.config.experiment import MACHINE_KEYS, ExperimentConfig
from bmsfed_app.config.files import ConfigError, config_names, read_values
from bmsfed_app.config.idle import idle_notes, precision_note
from bmsfed_app.config.loading import change_config, check_config, config_of, load_config
from bmsfed_app.config.overrides import parse_pairs, split_pairs

__all__ = [
    "MACHINE_KEYS",
    "ConfigError",
    "ExperimentConfig",
    "change_config",
    "check_config",
    "check_packages",
    "config_names",
    "config_of",
    "idle_notes",
    "load_config",
    "parse_pairs",
    "precision_note",
    "read_values",
    "split_pairs",
]
