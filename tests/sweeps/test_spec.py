"""Sweep files: which runs they mean, what a run is known by, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bmsfed_app.config import load_config
from bmsfed_app.sweeps import Sweep, SweepError, load_sweep, run_key

SMALL: dict[str, Any] = {
    "title": "Digits",
    "baselines": ["fedavg"],
    "set": {"rounds": 3, "clients": 4, "per_round": 2},
    "methods": ["fedavg", {"name": "strict", "method": "bmsfed", "set": {"chi": 5.0}}],
    "datasets": ["cg-digits"],
    "partitions": [
        {"name": "iid", "set": {"partition": "iid"}},
        {"name": "dirichlet", "set": {"partition": "dirichlet", "alpha": 0.5}},
    ],
    "seeds": [0, 1],
    "scales": {
        "smoke": {"set": {"rounds": 1}, "seeds": [7], "partitions": ["iid"]},
        "desk": {},
    },
}


def sweep(tmp_path: Path, scale: str = "desk", changes: Any = None, **options: Any) -> Sweep:
    file = tmp_path / "digits.yaml"
    file.write_text(yaml.safe_dump(SMALL | (changes or {})))
    return load_sweep(str(file), scale, **options)


def test_every_method_meets_every_data_set_partition_and_seed(tmp_path: Path) -> None:
    found = sweep(tmp_path)
    labels = [(r.method, r.partition, r.seed) for r in found.runs]
    assert len(labels) == len(set(labels)) == 8
    assert [seed for *_, seed in labels] == [0] * 4 + [1] * 4
    [run] = [r for r in found.runs if (r.method, r.partition, r.seed) == labels[-1]]
    assert run.config.partition == "dirichlet"
    assert run.config.alpha == 0.5
    assert run.config.method == "bmsfed"
    assert run.config.method_settings().model_dump()["chi"] == 5.0
    assert run.config.rounds == 3
    assert run.folder(tmp_path).name == f"cg-digits-bmsfed-s1-{run.key[:12]}"


def test_a_scale_changes_settings_and_takes_a_part(tmp_path: Path) -> None:
    found = sweep(tmp_path, "smoke")
    assert [(r.partition, r.seed, r.config.rounds) for r in found.runs] == [("iid", 7, 1)] * 2
    scales = {
        "desk": {"sets": {"cg-digits": {"lr": 0.5}}, "configs": {"cg-digits": "cg-mnist-desk"}}
    }
    found = sweep(tmp_path, changes={"scales": scales})
    assert {(r.dataset, r.config.dataset) for r in found.runs} == {("cg-digits", "cg-mnist")}
    assert {(r.config.lr, r.config.data_fraction) for r in found.runs} == {(0.5, 0.1)}


def test_only_and_on_say_which_data_sets(tmp_path: Path) -> None:
    methods = ["fedavg", {"name": "bmsfed", "only": ["cg-digits"]}]
    changes = {"methods": methods, "datasets": ["cg-digits", "cg-mnist"]}
    found = sweep(tmp_path, changes=changes)
    assert {(r.method, r.dataset) for r in found.runs} == {
        ("fedavg", "cg-digits"),
        ("bmsfed", "cg-digits"),
        ("fedavg", "cg-mnist"),
    }
    there = sweep(tmp_path, on=["mvsa"], data_dirs={"mvsa": "/m", "": "/other"})
    assert {(r.dataset, r.config.data_dir) for r in there.runs} == {("mvsa", "/m")}
    here = sweep(tmp_path, data_dirs={"mvsa": "/m", "": "/other"})
    assert {r.config.data_dir for r in here.runs} == {"/other"}


def test_on_takes_the_files_entry_where_the_name_is_one(tmp_path: Path) -> None:
    own = {"name": "cg-digits", "set": {"rounds": 7}, "needs": "a folder"}
    mine = {"name": "mine", "config": "cg-mnist-desk", "set": {"lr": 0.5}}
    scale = {"datasets": ["mine"], "sets": {"cg-digits": {"lr": 0.25}}}
    changes = {"methods": ["fedavg"], "datasets": [own, mine], "scales": {"desk": scale}}
    whole = sweep(tmp_path, changes=changes | {"scales": {"desk": {"sets": scale["sets"]}}})
    for name in ("cg-digits", "mine"):
        found = sweep(tmp_path, changes=changes, on=[name]).runs
        assert found == [r for r in whole.runs if r.dataset == name]
    first = sweep(tmp_path, changes=changes, on=["cg-digits", "mvsa"]).runs[0]
    assert (first.config.rounds, first.config.lr, first.needs) == (7, 0.25, "a folder")


def test_a_data_folder_is_of_a_data_set_that_there_is(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: cg-mnist-desk\n")
    changes = {"datasets": [{"name": "mine", "config": "mine.yaml"}]}
    for name in ("mine", "cg-mnist"):
        found = sweep(tmp_path, changes=changes, data_dirs={name: "/m", "mvsa": "/other"})
        assert {r.config.data_dir for r in found.runs} == {"/m"}
    with pytest.raises(SweepError, match="no data set 'cgmnist'; did you mean 'cg-mnist'"):
        sweep(tmp_path, changes=changes, data_dirs={"cgmnist": "/m"})


def test_a_configuration_beside_the_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: cg-digits\nlr: 0.25\n")
    found = sweep(tmp_path, changes={"datasets": [{"name": "mine", "config": "mine.yaml"}]})
    assert {(r.dataset, r.config.lr) for r in found.runs} == {("mine", 0.25)}


def test_overrides_win_over_all_that_the_file_says(tmp_path: Path) -> None:
    assert {r.config.rounds for r in sweep(tmp_path, overrides={"rounds": "9"}).runs} == {9}
    for name in ("chi", "methods.bmsfed.chi"):
        strict = {"name": "strict", "method": "bmsfed", "set": {name: 1.5}}
        changes = {"methods": [strict], "baselines": []}
        for given in ("chi", "methods.bmsfed.chi"):
            found = sweep(tmp_path, changes=changes, overrides={given: "3"})
            assert {r.config.method_settings().model_dump()["chi"] for r in found.runs} == {3}
    data = {"name": "cg-digits", "set": {"encoders": {"gray": "conv4"}}}
    changes = {"set": {"encoders.gray": "resnet18"}, "datasets": [data]}
    found = sweep(tmp_path, changes=changes, overrides={"encoders.gray": "mlp"})
    assert {r.config.encoders["gray"] for r in found.runs} == {"mlp"}


def test_a_method_of_the_command_line_has_what_its_entry_sets(tmp_path: Path) -> None:
    entry = {"name": "mine", "set": {"chi": 1.5}}
    changes, given = {"methods": [entry], "baselines": []}, {"methods.mine.base": "bmsfed-plus"}
    for run in sweep(tmp_path, changes=changes, overrides=given).runs:
        assert run.config.method_settings().model_dump()["chi"] == 1.5


def test_a_run_is_known_by_what_it_computes() -> None:
    def key(method: str = "bmsfed", **changes: Any) -> str:
        return run_key(load_config("cg-digits", {"method": method, **changes}))

    one = key()
    assert key(device="cpu", data_dir="/elsewhere", engine="ray", keep_checkpoints=5) == one
    assert key(**{"methods.fedprox.mu": 0.3}) == one  # of a method that it does not use
    assert key(chi=1.5) != one
    assert key(seed=1) != one
    assert key(lr=0.123) != one
    assert key("mine", **{"methods.mine": {"base": "bmsfed-plus"}}) == key("bmsfed-plus") != one


def test_of_precision_auto_runs_of_each_that_it_may_be_count(tmp_path: Path) -> None:
    runs = {
        precision: sweep(tmp_path, overrides={"precision": precision}).runs
        for precision in ("auto", "bf16", "float32")
    }
    root = tmp_path / "runs"
    for auto, half, exact in zip(*runs.values(), strict=True):
        assert auto.key not in auto.alike.values()
        assert list(auto.names.items()) == [
            (auto.name, "auto"),
            (half.name, "bf16"),
            (exact.name, "float32"),
        ]
        assert half.names == {half.name: "bf16"}
        assert auto.folder(root) == root / auto.name

    auto, half, exact = (found[0] for found in runs.values())
    for run, complete in ((exact, False), (exact, True), (half, True), (auto, True)):
        (root / run.name).mkdir(parents=True, exist_ok=True)
        summary = {"complete": complete, "rounds": 1}
        (root / run.name / "summary.json").write_text(json.dumps(summary))
        assert auto.folder(root) == root / (run if complete else auto).name
    assert exact.folder(root) == root / exact.name


def test_a_precision_and_auto_that_may_be_it_are_one_run(tmp_path: Path) -> None:
    settings = [{"name": p, "set": {"precision": p}} for p in ("bf16", "auto")]
    with pytest.raises(SweepError, match=r"bf16, seed 0' and '.* auto, seed 0' are the same run"):
        sweep(tmp_path, changes={"settings": settings})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": ["fedavg"]}, "unknown key 'method'; did you mean 'methods'"),
        ({"methods": ["fedavg", {"nam": "x"}]}, "methods.1.name"),
        ({"methods": ["fedavgg"], "baselines": []}, "fedavgg, cg-digits, iid, seed 0': .*fedavg'"),
        ({"methods": ["fedavg", "fedavg"]}, "'fedavg' stands there twice"),
        (
            {"methods": ["fedavg", {"name": "x", "method": "fedavg", "set": {"chi": 1}}]},
            "run 'x, .*unknown key 'chi'",
        ),
        ({"baselines": ["bmsfed"]}, "baselines: there is no 'bmsfed'"),
        ({"datasets": ["cg-digit"]}, "no configuration 'cg-digit'; did you mean 'cg-digits'"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [-1]}, "seeds.0: .*greater than or equal to 0"),
        ({"set": {"round": 3}}, "run 'fedavg, cg-digits, iid, seed 0': unknown key 'round'"),
        ({"scales": {"desk": {"methods": ["strct"]}}}, "scales.desk.methods: .*'strict'"),
        ({"scales": {"desk": {"seed": [1]}}}, "unknown key 'scales.desk.seed'.*'seeds'"),
        ({"scales": {"desk": {"sets": {"mvsa": {}}}}}, "scales.desk.sets: there is no 'mvsa'"),
        ({"scales": {"full": {}}}, "scale: there is no 'desk' .there are: full"),
        (
            {"methods": ["fedavg", {"name": "too", "method": "fedavg"}]},
            "'fedavg, cg-digits, iid, seed 0' and 'too, cg-digits, iid, seed 0' are the same run",
        ),
        (
            {"methods": ["fedcmi"], "set": {"missing": {"scheme": "one", "rate": 0.5}}}
            | {"baselines": []},
            "run 'fedcmi, cg-digits, iid, seed 0': ",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SweepError, match=said):
        sweep(tmp_path, changes=changes)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="no sweep 'tabel9'"):
        load_sweep("tabel9")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(SweepError, match="holds no keys"):
        load_sweep(str(tmp_path / "list.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [\n")
    with pytest.raises(SweepError, match="not valid YAML"):
        load_sweep(str(tmp_path / "bad.yaml"))
