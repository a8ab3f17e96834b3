"""CrisisMMD v2.0: posts of disasters, text and picture (Alam et al., 2018; the paper's Table 7)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.media import read_lines
from bmsfed_app.datasets.posts import PostSettings, PostSource
from bmsfed_app.datasets.prepared import Sample, Scan
from bmsfed_app.datasets.source import DATASETS

CLASSES = {
    "informative": ("not_informative", "informative"),
    "humanitarian": (
        "affected_individuals",
        "infrastructure_and_utility_damage",
        "injured_or_dead_people",
        "missing_or_found_people",
        "not_humanitarian",
        "other_relevant_information",
        "rescue_volunteering_or_donation_effort",
        "vehicle_damage",
    ),
}
_COLUMNS = ("event_name", "image_id", "tweet_text", "image", "label")


class CrisisSettings(PostSettings):
    """Settings of ``crisismmd``."""

    task: Literal["informative", "humanitarian"] = Field(
        "informative", description="two classes, or eight"
    )
    evaluate_on: Literal["test", "dev"] = Field("test", description="the list to test on")


class CrisisMmd(PostSource):
    """Posts whose text and picture were given the same label; natural clients are the events."""

    name = "crisismmd"
    summary = "posts of disasters: text and picture, 2 (or 8) classes"
    obtain = "crisisnlp.qcri.org/crisismmd, version 2.0 with agreed labels; CC BY-NC-SA 4.0."
    layout = (
        "task_<task>_text_img_agreed_lab_train.tsv, ..._dev.tsv, ..._test.tsv and the pictures in "
        "data_image/"
    )
    natural = "events"
    settings = CrisisSettings

    def official_counts(self, settings: CrisisSettings) -> Mapping[str, int]:
        """Rows of the published lists."""
        counts = {
            "informative": {"train": 9601, "dev": 1573, "test": 1534},
            "humanitarian": {"train": 6126, "dev": 998, "test": 955},
        }[settings.task]
        return {"train": counts["train"], "test": counts[settings.evaluate_on]}

    def classes(self, settings: CrisisSettings) -> tuple[str, ...]:
        """The task's labels."""
        return CLASSES[settings.task]

    def scan(self, data_dir: Path, settings: CrisisSettings) -> Scan:
        """List the rows of the published division."""
        if not (data_dir / "data_image").is_dir():
            raise DataError(
                f"no folder data_image in {data_dir}: '{self.name}' needs {self.layout}"
            )
        names, scan = self.classes(settings), Scan()
        for split, part in (("train", "train"), ("test", settings.evaluate_on)):
            file = data_dir / f"task_{settings.task}_text_img_agreed_lab_{part}.tsv"
            # The lists are not quoted: a quotation mark is text.
            head, *lines = read_lines(file, f"'{self.name}' needs {self.layout}") or [""]
            columns = head.split("\t")
            if missing := [c for c in _COLUMNS if c not in columns]:
                raise DataError(f"{file} has no column '{missing[0]}': get the official file again")
            for number, line in enumerate(lines, start=2):
                row = dict(zip(columns, line.split("\t"), strict=False))
                where = f"{file.name} line {number}"
                if len(row) != len(columns):
                    reason = f"{where} is not a row of {', '.join(columns)}"
                    scan.leave_out(where, reason, split)
                    continue
                if row["label"] not in names:
                    reason = f"{where} has label '{row['label']}', not {', '.join(names)}"
                    scan.leave_out(where, reason, split, "unknown label")
                    continue
                values = {"text": row["tweet_text"], "image": data_dir / row["image"]}
                sample = (row["image_id"], split, names.index(row["label"]), values)
                key = row.get("tweet_id") or row["image_id"]
                scan.samples.append(Sample(*sample, client=row["event_name"], key=key))
        unused = "dev" if settings.evaluate_on == "test" else "test"
        scan.notes.append(f"the list {unused} is not used (evaluate_on: {settings.evaluate_on})")
        return scan


DATASETS.add(CrisisMmd.name, CrisisMmd())
