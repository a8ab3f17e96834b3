"""A machine's data against the experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bmsfed_app.cli.preflight.findings import Finding, failed, ok, warning
from bmsfed_app.config import ExperimentConfig
from bmsfed_app.models.batches import batch_fault
from client_app.data import local_data
from client_app.node import KEYS, on_node, unknown_keys


def node_data(config: ExperimentConfig, node_config: Mapping[str, Any]) -> list[Finding]:
    """Read a node's data as its client will, and say what is there."""
    what, findings = "node config", []
    if unknown := unknown_keys(node_config):
        known = f"(known: {', '.join(KEYS)})"
        findings.append(warning(what, f"nothing reads {', '.join(unknown)} {known}"))
    try:
        settings = on_node(config.client_settings(), node_config)
    except ValueError as error:
        return [*findings, failed(what, str(error))]
    if not Path(str(node_config.get("data-dir", "/"))).is_absolute():
        findings.append(
            warning(what, "data-dir is relative: it is looked for where the SuperNode was started")
        )
    try:
        data = local_data(node_config, settings)
    except (ValueError, OSError) as error:
        return [*findings, failed("data", str(error))]
    who, held = data.client_id, data.modalities
    if fault := batch_fault(settings.network, who, held, len(data), settings.batch_size):
        return [*findings, failed("data", fault)]
    counts = data.info().class_counts
    told = f"client '{who}' has {len(data):,} samples of {', '.join(held)}, "
    told += f"of {sum(c > 0 for c in counts)} of {len(counts)} classes"
    return [*findings, ok("data", told)]


def server_data(config: ExperimentConfig) -> list[Finding]:
    """Look at the data by which the server evaluates, as a run does at its start."""
    try:
        return [ok("data", line) for line in config.check_data().lines()]
    except (ValueError, OSError) as error:
        return [failed("data", str(error))]
