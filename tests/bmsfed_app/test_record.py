"""The record of a run: summaries by hand, rows that cannot be read, and where the code is from."""

import json
import math
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from bmsfed_app.record.files import RunFolderError, append_rows, cut_rows, read_rows
from bmsfed_app.record.origin import bundle, commit, hardware, source_hash
from bmsfed_app.record.rows import STANDARD_METRICS, ClientRow, PickRow, RoundRow
from bmsfed_app.record.run import common_prefix
from bmsfed_app.record.summary import summarise, summary
from strategies import Metric
from tests.run_folders import limited

ROOT = Path(__file__).resolve().parents[2]
ACCURACY, ALONE, _, LOSS = STANDARD_METRICS


def rounds() -> list[RoundRow]:
    rows = []
    for r in range(21):
        by_modality = {"a": 0.5, "b": (30 - r) / 100}
        loss = float("nan") if r == 20 else 2.0 - r / 10
        metrics = {"accuracy": r / 100, "loss": loss, "accuracy_by_modality": by_modality}
        rows.append(RoundRow(kind="round", round=r, **metrics))
    return [*rows, RoundRow(kind="round", round=21, accuracy_by_modality={})]  # not evaluated


def test_summary_by_hand() -> None:
    found = summary(rounds(), ACCURACY)
    assert found is not None
    assert (found.last, found.mean_last) == pytest.approx((0.20, 0.155))
    assert found.rounds == list(range(11, 21))
    alone = summary(rounds(), ALONE, "b")
    assert alone is not None
    assert (alone.last, alone.mean_last) == pytest.approx((0.10, 0.145))
    assert found.over() == "rounds 11-20 (10 evaluations)"
    assert summary(rounds()[:1], ACCURACY) is None
    assert set(summarise(rounds(), STANDARD_METRICS)) == {
        *("accuracy", "accuracy_by_modality", "loss")
    }
    one, few = summary(rounds()[:2], ACCURACY), summary(rounds()[:4], ACCURACY)
    assert (one and one.over(), few and few.over()) == (
        "round 1 (1 evaluation)",
        "rounds 1-3 (3 evaluations)",
    )


@pytest.mark.parametrize(
    ("evaluated", "counted"),
    [
        (range(4, 41, 4), [32, 36, 40]),  # not all ten evaluations of the run
        (range(4, 39, 4), [28, 32, 36]),  # up to the last that there is, not the last round
        ([*range(25, 31), 40], [40]),
    ],
)
def test_the_closing_mean_is_over_rounds_not_evaluations(
    evaluated: Iterable[int], counted: list[int]
) -> None:
    rows = [RoundRow(kind="round", round=r, accuracy=r / 100) for r in evaluated]
    found = summary([*rows, RoundRow(kind="round", round=38)], ACCURACY)
    assert found is not None
    assert found.rounds == counted
    assert found.mean_last == pytest.approx(sum(counted) / len(counted) / 100)


def test_a_metric_that_is_no_number_any_more_is_not_passed_over() -> None:
    """A run that diverged does not end with the loss of the round before."""
    loss = summary(rounds(), LOSS)
    assert loss is not None
    assert math.isnan(loss.last)
    assert math.isnan(loss.mean_last)
    before = summary(rounds()[:20], LOSS)
    assert before is not None
    assert before.last == pytest.approx(0.1)


def test_a_metric_says_how_it_is_shown() -> None:
    assert ALONE.label("b") == "b alone"
    assert (ALONE.by_modality, ACCURACY.by_modality) == (True, False)
    assert (ACCURACY.text(0.625), LOSS.text(0.69314)) == ("62.5", "0.6931")
    axes = [metric.axis for metric in (ALONE, LOSS, Metric("g", "{modality} gap"))]
    assert axes == ["accuracy", "loss", "gap"]


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["client-08", "client-09"], "client-"),
        (["client-18", "client-19"], "client-"),
        (["a", "ab"], ""),
        (["bob"], ""),
        ([], ""),
    ],
)
def test_what_names_have_in_common(names: list[str], prefix: str) -> None:
    assert common_prefix(names) == prefix


# --- rows -----------------------------------------------------------------------------------------


@pytest.fixture
def history(tmp_path: Path) -> Path:
    file = tmp_path / "history.jsonl"
    for r in range(4):
        client = ClientRow(kind="client", round=r, client="a", losses={"loss": float("inf")})
        append_rows(file, [client, RoundRow(kind="round", round=r, accuracy=0.1 * r)])
    return file


def test_rows_are_read_as_they_were_written(history: Path) -> None:
    rows, cut_off = read_rows(history, STANDARD_METRICS)
    assert not cut_off
    assert [r.round for r in rows] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert isinstance(rows[0], ClientRow)
    assert rows[0].losses == {"loss": float("inf")}
    picks = history.with_name("selection.jsonl")
    append_rows(picks, [PickRow(round=1, client="a", role="uni", cost=1e-7)])
    assert json.loads(picks.read_text()) == {"round": 1, "client": "a", "role": "uni", "cost": 1e-7}


def test_only_a_last_row_that_was_cut_off_is_dropped(history: Path) -> None:
    whole = history.read_bytes()
    history.write_bytes(whole[:-9])
    rows, cut_off = read_rows(history)
    assert cut_off
    assert len(rows) == 7
    aside = history.parent / "aside"
    aside.mkdir()
    assert cut_rows(history, 3, lambda: aside) == []
    lines = whole.splitlines(keepends=True)
    assert history.read_bytes() == b"".join(lines[:7])
    assert (aside / "history.jsonl").read_bytes() == lines[7][:-9]


def test_rows_of_later_rounds_are_kept_aside(history: Path) -> None:
    lines = history.read_bytes().splitlines(keepends=True)
    aside = history.parent / "aside"
    aside.mkdir()
    assert cut_rows(history, 3, lambda: pytest.fail("nothing is cut off")) == []
    assert cut_rows(history, 1, lambda: aside) == []
    assert history.read_bytes() == b"".join(lines[:4])
    assert (aside / "history.jsonl").read_bytes() == b"".join(lines[4:])


@pytest.mark.parametrize("line", [1, 3, 7])
@pytest.mark.parametrize(
    "damage", ['{"kind": "rou', "[1]", '{"kind": "round", "round": "1"}', "\x00\xff"]
)
def test_any_other_row_that_cannot_be_read_is_named_and_nothing_is_lost(
    history: Path, line: int, damage: str
) -> None:
    lines = history.read_text().splitlines()
    lines[line] = damage
    history.write_text("\n".join(lines) + "\n", encoding="latin-1")
    before = history.read_bytes()
    with pytest.raises(RunFolderError, match=rf"history\.jsonl', line {line + 1}"):
        read_rows(history)
    assert history.read_bytes() == before
    # Who goes on with the run keeps the damaged file aside, and all other rows.
    aside = history.parent / "aside"
    aside.mkdir()
    assert cut_rows(history, 2, lambda: aside) == [line + 1]
    kept = [text for number, text in enumerate(lines[:6]) if number != line]
    assert history.read_text().splitlines() == kept
    assert (aside / "history.damaged.jsonl").read_bytes() == before


def test_rows_that_cannot_all_be_written_are_not_written(history: Path) -> None:
    """The disk is full after a part of them."""
    before = history.read_bytes()
    rows = [RoundRow(kind="round", round=r, accuracy=0.5) for r in range(4, 2000)]
    done, message = limited(len(before) + 5000, lambda: append_rows(history, rows))
    assert done == "RunFolderError"
    assert message.startswith(f"cannot write '{history}' (File too large): make room there")
    assert history.read_bytes() == before


# --- where the code is from -----------------------------------------------------------------------


def test_a_bundle_is_traced_by_its_name_and_its_code(tmp_path: Path) -> None:
    """Flower unpacks the app, without git, into a folder that ends in the bundle's hash."""
    unpacked = tmp_path / "home" / "apps" / "bmsfed.bmsfed.0.1.0.1a2b3c4d"
    for package in ("strategies", "bmsfed_app", "client_app", "server_app"):
        ignored = shutil.ignore_patterns("__pycache__", "*.typed", "*.j2")
        shutil.copytree(ROOT / package, unpacked / package, ignore=ignored)
    assert bundle(unpacked) == unpacked.name
    assert source_hash(unpacked) == source_hash()
    (unpacked / "strategies" / "agm.py").write_text("changed = True\n")
    assert source_hash(unpacked) != source_hash()
    assert bundle(ROOT / "bmsfed-0.1.0") is None


def test_the_hardware_is_named_with_the_gpu_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "Xeon of some kind"})
    assert ", Xeon of some kind, " in hardware("cpu")
    assert hardware("auto") == hardware("cuda") == hardware("cpu") + ", NVIDIA H100 80GB HBM3"


def test_the_commit_is_the_apps_own(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        name = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *name, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    file = tmp_path / "bmsfed_app/record/origin.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    assert commit(tmp_path) is None
    git("init")
    git("commit", "--allow-empty", "-m", "dotfiles")
    assert commit(tmp_path) is None  # another project's checkout, around the app
    git("add", ".")
    git("commit", "-m", "the app")
    assert commit(tmp_path) == git("rev-parse", "--short=12", "HEAD")
    file.write_text("changed")
    assert str(commit(tmp_path)).endswith("+")
