"""A table of numbers of some actors, as a user might bring it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: Settings of the data set ``table`` for it.
SETTINGS: dict[str, Any] = {
    "classes": ["calm", "tense"],
    "modalities": {
        "face": {"type": "numbers", "columns": ["f0", "f1", "f2"]},
        "voice": {"type": "numbers", "columns": ["v0", "v1"]},
    },
}


def write_table(
    folder: Path, actors: Sequence[str], *, each: int = 6, face: Sequence[float] = ()
) -> Path:
    """Write ``each`` training rows of every actor, and 20 rows to test on.

    Parameters
    ----------
    folder : Path
        Receives ``samples.csv``.
    actors : sequence of str
        Names in the column ``client``.
    each : int
    face : sequence of float, optional
        What every actor's ``face`` is multiplied by; 1 if left out.
    """
    rng = np.random.default_rng(0)
    scales = dict(zip(actors, face or [1.0] * len(actors), strict=True))
    lines = ["id,split,label,client,f0,f1,f2,v0,v1"]
    for number, actor in enumerate([*np.repeat(actors, each), *["tested"] * 20]):
        label = number % 2
        values = rng.normal(label, 0.5, 5)
        values[:3] *= scales.get(actor, 1.0)
        split = "test" if actor == "tested" else "train"
        cells = [f"s{number}", split, ("calm", "tense")[label], actor, *map(str, values)]
        lines.append(",".join(cells))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.csv").write_text("\n".join(lines) + "\n")
    return folder
