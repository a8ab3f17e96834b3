"""What a person sees: a table that names everything, and what was left out."""

import json
from pathlib import Path

from bmsfed_app.config import load_config
from bmsfed_app.record.files import append_rows
from bmsfed_app.record.rows import RoundRow
from server_app.console import TableCallback
from server_app.run_folder import RunFolder
from strategies import (
    Assignment,
    ClientInfo,
    ClientReport,
    FedAvg,
    RoundReport,
    ServerState,
)

BOTH = ("colored", "gray")


def shown(
    where: Path | RunFolder, report: RoundReport, clients: dict[str, tuple[str, ...]]
) -> list[str]:
    lines: list[str] = []
    folder = where
    if isinstance(folder, Path):
        folder = RunFolder.create(folder / "run", load_config("cg-digits"))
    table = TableCallback(folder, lines.append)
    strategy = FedAvg(2)
    arrays = dict.fromkeys([f"encoders.{m}.w" for m in BOTH], None)
    strategy.state = ServerState(arrays=arrays)  # type: ignore[arg-type]
    strategy.state.clients = {c: ClientInfo(c, m) for c, m in clients.items()}
    table.on_start(strategy, 5)
    table.after_round(strategy, report)
    table.on_end(strategy, None)
    return lines


def test_a_round_is_one_line_with_all_that_matters(tmp_path: Path) -> None:
    report = RoundReport(
        3,
        [Assignment("client-08", BOTH), Assignment("client-11", ("gray",))],
        ratios={"colored": 1.0, "gray": 2.345},
        weak="gray",
        bytes_down=3 * 2**20,
        bytes_up=2**19,
        seconds=12.34,
        metrics={"accuracy": 0.5, "accuracy_by_modality": {"colored": 0.25, "gray": 0.75}},
    )
    lines = shown(tmp_path, report, {"client-08": BOTH, "client-11": BOTH, "client-12": BOTH})
    [line] = [x for x in lines if x.lstrip().startswith("3 ")]
    assert " ".join(line.split()) == "3 50.0 25.0 75.0 gray 2.35 08 11:gray 3.0M 512K 12.3"
    head = next(x for x in lines if x.lstrip().startswith("round"))
    for column in ("all", "colored", "gray", "ratio", "S_M", "S_I", "down", "up"):
        assert column in head
    assert lines[-1] == f"run folder: {tmp_path / 'run'}"


def test_the_closing_mean_says_of_which_rounds_it_is(tmp_path: Path) -> None:
    evaluated = [RoundRow(kind="round", round=r, accuracy=0.05 * r) for r in (0, 4, 8, 12)]
    others = [RoundRow(kind="round", round=r, bytes_up=2**20) for r in (1, 2, 5, 13)]
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits"))
    append_rows(folder.history, [*evaluated, *others])
    lines = shown(folder, RoundReport(7), {})
    [at] = [i for i, line in enumerate(lines) if "mean of" in line]
    assert lines[at].split() == "accuracy in % last mean of rounds 4-12 (3 evaluations)".split()
    assert lines[at + 1].split() == ["all", "modalities", "60.0", "40.0"]
    assert "received 4.0M" in lines[at + 2]


def test_metrics_of_other_rounds_have_a_head_of_their_own(tmp_path: Path) -> None:
    alone = {"accuracy_by_modality": {"colored": 0.5}}
    rows = [RoundRow(kind="round", round=1, accuracy=0.2, **alone)]
    rows.append(RoundRow(kind="round", round=2, accuracy=0.4, accuracy_by_modality={"gray": 0.1}))
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits"))
    append_rows(folder.history, rows)
    heads = [line for line in shown(folder, RoundReport(3), {}) if "mean of" in line]
    assert [head.partition("mean of ")[2] for head in heads] == [
        "rounds 1-2 (2 evaluations)",
        "round 1 (1 evaluation)",
        "round 2 (1 evaluation)",
    ]


def test_the_data_set_goes_by_the_name_that_the_run_has_for_it(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", load_config("cg-digits"))
    info = json.loads(folder.info_file.read_text()) | {"dataset": "film reviews"}
    folder.info_file.write_text(json.dumps(info))
    [title, *_] = shown(folder, RoundReport(1), {})
    assert title.startswith("bmsfed on film reviews: rounds 1-5")


def test_a_client_left_out_is_named_with_the_reason(tmp_path: Path) -> None:
    bad = ClientReport("bob", "train", BOTH, status="array 'head.bias' holds NaN or infinity")
    report = RoundReport(1, [Assignment("bob", BOTH)], [bad], refused={"node 7": "old version"})
    lines = shown(tmp_path, report, {"alice": BOTH, "bob": BOTH, "carol": ("gray",)})
    assert "      left out: bob: array 'head.bias' holds NaN or infinity" in lines
    assert "      left out: node 7: old version" in lines


def test_who_holds_one_modality_trains_all_it_holds(tmp_path: Path) -> None:
    report = RoundReport(1, [Assignment("carol", ("gray",)), Assignment("bob", ("gray",))])
    lines = shown(tmp_path, report, {"alice": BOTH, "bob": BOTH, "carol": ("gray",)})
    [line] = [x for x in lines if x.lstrip().startswith("1 ")]
    assert "carol:gray" in line.split("bob:gray")[0]  # S_M before S_I


def test_many_clients_are_counted(tmp_path: Path) -> None:
    names = [f"client-{i:02d}" for i in range(20)]
    report = RoundReport(1, [Assignment(n, BOTH) for n in names])
    lines = shown(tmp_path, report, dict.fromkeys(names, BOTH))
    assert any("00 01 02 03 04 +15" in x for x in lines)


def test_two_clients_get_a_hint(tmp_path: Path) -> None:
    report = RoundReport(1, [Assignment("a", BOTH)], joined=[ClientInfo("a", BOTH)])
    lines = shown(tmp_path, report, {"a": BOTH, "b": BOTH})
    assert any("num-supernodes=10" in x for x in lines)
