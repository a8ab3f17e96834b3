"""Which runs a report takes together: those that differ in nothing but the seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bmsfed_app.report.studies import group, read_runs
from tests.run_folders import make_run


def pooled(*runs: Path) -> dict[str, dict[str, list[int]]]:
    """The seeds of every series, by the study's title and the series' label."""
    return {
        study.title: {series.label: [run.seed for run in series.runs] for series in study.series}
        for study in group(read_runs(runs))
    }


# --- data ---------------------------------------------------------------------------------------


def test_runs_on_different_data_are_not_pooled(tmp_path: Path) -> None:
    """Two tables of one name, same settings, other seeds, were one series: 88.3 ± 148."""
    one, other = {"data": "aaaaaa0123456789"}, {"data": "bbbbbb0123456789"}
    runs = [
        make_run(tmp_path / str(seed), seed=seed, info=info)
        for seed, info in enumerate([one, other, one])
    ]
    assert pooled(*runs) == {
        "cg-digits (data aaaaaa)": {"bmsfed": [0, 2]},
        "cg-digits (data bbbbbb)": {"bmsfed": [1]},
    }


def test_as_many_digits_as_tell_the_data_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / e, info={"data": f"aaaaaa{e}"}) for e in ("c012345", "d012345")]
    assert list(pooled(*runs)) == ["cg-digits (data aaaaaac)", "cg-digits (data aaaaaad)"]


def test_the_same_data_in_another_folder_is_the_same(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / str(seed), seed=seed, config={"data_dir": f"/data/{seed}"})
        for seed in (0, 1)
    ]
    assert pooled(*runs) == {"cg-digits": {"bmsfed": [0, 1]}}


def test_a_data_set_goes_by_the_name_that_its_runs_give_it(tmp_path: Path) -> None:
    tables = {"config": {"dataset": "table"}}
    runs = [
        make_run(tmp_path / name, info={"dataset": name, "data": name}, **tables)
        for name in ("film reviews", "actors")
    ]
    assert list(pooled(*runs)) == ["film reviews", "actors"]


def test_a_partition_file_goes_by_what_is_in_it(tmp_path: Path) -> None:
    runs = [
        make_run(
            tmp_path / str(seed),
            seed=seed,
            info={"partition_file": content},
            config={"partition": "file", "partition_file": f"/sites-{seed}.csv"},
        )
        for seed, content in enumerate(["c0ffee", "decade", "c0ffee"])
    ]
    [series] = pooled(*runs).values()
    assert sorted(series.values()) == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("other", "title"),
    [
        ({"config": {"data_dir": "/elsewhere"}}, "data not recorded) 2"),
        ({"config": {"dataset_settings": {"table": "other.csv"}}}, "data not recorded) 2"),
        ({"info": {"data": "1a2b3c4d5e6f7081"}}, "data 1a2b3c)"),
    ],
)
def test_runs_that_do_not_know_their_data_pool_only_by_folder_and_settings(
    tmp_path: Path, other: dict[str, Any], title: str
) -> None:
    given = {"data_dir": "/data", "dataset_settings": {"table": "samples.csv"}}
    unknown = {"info": {"data": ""}}
    same = [make_run(tmp_path / str(s), seed=s, config=given, **unknown) for s in (0, 1)]
    odd = make_run(
        tmp_path / "odd",
        seed=2,
        **(unknown | other | {"config": given | other.get("config", {})}),
    )
    assert pooled(*same, odd) == {
        "cg-digits (data not recorded)": {"bmsfed": [0, 1]},
        f"cg-digits ({title}": {"bmsfed": [2]},
    }


# --- settings -----------------------------------------------------------------------------------


def test_runs_of_other_settings_are_not_pooled(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", seed=0, config={"methods": {"bmsfed": {"chi": 1.0}}}),
        make_run(tmp_path / "b", seed=1, config={"methods": {"bmsfed": {"chi": 1.2}}}),
        make_run(tmp_path / "c", seed=2, method="fedavg"),
    ]
    series = {"bmsfed, chi 1.0": [0], "bmsfed, chi 1.2": [1], "fedavg": [2]}
    assert pooled(*runs) == {"cg-digits": series}


def test_machine_and_other_methods_settings_do_not_separate_seeds(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", seed=0, config={"device": "cpu", "methods": {"x": {"chi": 1}}}),
        make_run(tmp_path / "b", seed=1, config={"device": "cuda", "data_dir": "elsewhere"}),
    ]
    assert pooled(*runs) == {"cg-digits": {"bmsfed": [0, 1]}}


def test_a_run_from_before_a_key_was_there_has_its_default(tmp_path: Path) -> None:
    """What a configuration lacks was done as by default, so these runs are of one series."""
    new = {"clip_norm": 0.0, "whole_share": 1.0, "encoders": {}}
    runs = [make_run(tmp_path / "a", seed=0), make_run(tmp_path / "b", seed=1, config=new)]
    assert pooled(*runs) == {"cg-digits": {"bmsfed": [0, 1]}}
    other = make_run(tmp_path / "c", seed=2, config={"clip_norm": 5.0})
    series = {"bmsfed, clip_norm 0.0": [0, 1], "bmsfed, clip_norm 5.0": [2]}
    assert pooled(*runs, other) == {"cg-digits": series}


def test_a_number_is_one_setting_however_it_is_written(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / str(seed), seed=seed, config={"methods": {"bmsfed": {"chi": chi}}})
        for seed, chi in enumerate([1, 1.0])
    ]
    assert pooled(*runs) == {"cg-digits": {"bmsfed": [0, 1]}}


def test_a_method_and_an_experiment_may_have_keys_of_one_name(tmp_path: Path) -> None:
    """Both Dirichlet's and FedOGM's is alpha."""
    own = {"methods": {"fedogm": {"alpha": 0.3}}}
    runs = [
        make_run(tmp_path / str(seed), method="fedogm", seed=seed, config={"alpha": alpha, **own})
        for seed, alpha in enumerate([1.0, 2.0])
    ]
    assert pooled(*runs) == {"cg-digits": {"fedogm, alpha 1.0": [0], "fedogm, alpha 2.0": [1]}}


def test_federations_of_other_sizes_are_not_pooled(tmp_path: Path) -> None:
    """With `clients: 0` as many take part as there are."""
    runs = [
        make_run(tmp_path / "a", seed=0, config={"clients": 0}, clients=["x", "y"]),
        make_run(tmp_path / "b", seed=1, config={"clients": 0}, clients=["x", "y", "z"]),
    ]
    assert pooled(*runs) == {"cg-digits": {"bmsfed, clients 2": [0], "bmsfed, clients 3": [1]}}


def test_a_folder_given_twice_counts_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    assert pooled(run, tmp_path / "a" / ".." / "a") == {"cg-digits": {"bmsfed": [0]}}
