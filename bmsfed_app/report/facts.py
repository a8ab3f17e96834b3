"""What was run: facts that all runs of a study share, and those that tell them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bmsfed_app.partitions import PARTITIONS, read_partition
from bmsfed_app.record.origin import commit, source_hash
from bmsfed_app.record.run import Run
from bmsfed_app.report.studies import Study

#: A heading, facts by name, and notes.
Card = tuple[str, dict[str, str], Sequence[str]]


def cards(study: Study) -> list[Card]:
    """One card for what all runs have in common, then one for each run."""
    runs = list(study.runs())
    facts = [_facts(run) for _, run in runs]
    shared = {k: v for k, v in facts[0].items() if all(f[k] == v for f in facts)}
    if len(runs) == 1:
        return [(runs[0][0].run_label(runs[0][1]), shared, runs[0][1].notes)]
    found: list[Card] = [("every run", shared, ())]
    for (series, run), own in zip(runs, facts, strict=True):
        differing = {k: v for k, v in own.items() if k not in shared}
        found.append((series.run_label(run), differing, run.notes))
    return found


def _facts(run: Run) -> dict[str, str]:
    """What a reader needs to know to run it again, by name."""
    info = run.info
    here = commit() if info.source == source_hash() else None  # a bundle's, in its checkout
    return {
        "method": run.method,
        "data set": run.dataset,
        "data": _data(run),
        "samples": _samples(run),
        "modalities": ", ".join(run.modalities),
        "seed": str(run.seed),
        "rounds": f"{run.rounds[-1].round} of {run.planned}",
        "answers left out": _left_out(run),
        "clients": _clients(run),
        "partition": _partition(run),
        "commit": info.commit or here or "unknown",
        "source": info.source + (f" ({info.bundle})" if info.bundle else "") or "unknown",
        "command": info.command,
        "hardware": info.hardware,
        "precision": info.precision or str(run.config.get("precision", "float32")),
        "started": info.started.replace("T", " "),
        "versions": ", ".join(f"{n} {v}" for n, v in info.versions.items()) or "unknown",
        "folder": str(run.path),
    }


def _data(run: Run) -> str:
    """Name the data that the run saw, as far as that was recorded."""
    if run.info.data:
        return run.info.data
    folder, settings = (run.config.get(key) for key in ("data_dir", "dataset_settings"))
    return f"unknown (folder {folder or 'by default'}, settings {settings or 'by default'})"


def _samples(run: Run) -> str:
    """Say how many samples each split used of those listed, and what the others lacked."""
    parts = []
    for split, count in run.info.samples.items():
        causes = [f"{number} {cause}" for cause, number in count.left_out.items()]
        left_out = f" ({', '.join(causes)})" if causes else ""
        name = "neither split" if split == "none" else split
        parts.append(f"{name}: {count.used} of {count.listed}{left_out}")
    return "; ".join(parts) or "unknown"


def _left_out(run: Run) -> str:
    left_out, all_ = run.left_out
    return f"{left_out} of {all_} ({100 * left_out / all_:.0f} %)" if all_ else "none asked for"


def _clients(run: Run) -> str:
    """Say how many clients there are, what they hold and how many train per round."""
    held = Counter(tuple(client.modalities) for client in run.clients.values())
    text = str(len(run.clients) or run.config.get("clients") or "unknown")
    if len(held) > 1:
        parts = [f"{number} with {' + '.join(m)}" for m, number in held.items()]
        text += f" ({'; '.join(parts)})"
    share = run.config.get("per_round")
    if isinstance(share, float) and share < 1:
        return f"{text}, {100 * share:g} % per round"
    return text if share is None else f"{text}, {share} per round"


def _partition(run: Run) -> str:
    name = str(run.config.get("partition", "unknown"))
    # A scheme of another package need not be installed where the report is made.
    return read_partition(run.config).describe() if name in PARTITIONS else name
