"""Configuration: what is accepted, what wins, and what is refused with which words."""

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from bmsfed_app.config import (
    ConfigError,
    ExperimentConfig,
    check_config,
    load_config,
    split_pairs,
)
from bmsfed_app.datasets import DataError
from bmsfed_app.methods import METHODS
from bmsfed_app.methods.bmsfed import BMSFedSettings
from bmsfed_app.partitions import read_partition
from bmsfed_app.schedules import SCHEDULES
from bmsfed_app.settings import ClientSettings


def bmsfed(config: ExperimentConfig) -> BMSFedSettings:
    settings = config.method_settings()
    assert isinstance(settings, BMSFedSettings)
    return settings


def test_shipped_configurations_by_name_and_by_path() -> None:
    by_name = load_config("cg-mnist")
    by_path = load_config(str(Path(__file__).parents[2] / "conf" / "cg-mnist.yaml"))
    assert by_name == by_path
    assert (by_name.clients, by_name.per_round, by_name.batch_size) == (30, 6, 128)
    assert (bmsfed(by_name).chi, bmsfed(by_name).coefficient) == (1.0, "constant")


def test_a_variant_of_ones_own_builds_on_its_base() -> None:
    paper = bmsfed(load_config("cg-mnist", {"method": "bmsfed-paper"}))
    assert (paper.chi, paper.coefficient) == (1.2, "clipped")
    own = {
        "dataset": "cg-digits",
        "method": "mine",
        "methods": {"mine": {"base": "bmsfed-release"}},
    }
    assert bmsfed(check_config(own)).pick == "single"  # the base's presets hold


def test_the_release_preset_sets_the_published_rules() -> None:
    config = load_config("cg-mnist", {"method": "bmsfed-release"})
    settings = bmsfed(config)
    assert (settings.gradient, settings.pick, settings.uni_cover) == ("update", "single", "uni")
    assert (settings.head_columns, settings.coefficient) == ("all", "constant")
    assert config.prototypes == "test"
    assert (
        load_config("cg-mnist", {"method": "bmsfed-release", "prototypes": "train"}).prototypes
        == "train"
    )


def test_a_method_sets_only_what_nobody_wrote(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("dataset: cg-digits\nmethod: fednh")
    assert load_config(str(file)).clip_norm == 10.0
    assert load_config(str(file), {"clip_norm": "3"}).clip_norm == 3.0
    assert load_config(str(file), {"method": "fedavg"}).clip_norm == 0.0
    above = tmp_path / "above.yaml"
    above.write_text("extends: mine.yaml\nclip_norm: 5")
    assert load_config(str(above)).clip_norm == 5.0


def test_only_a_method_that_says_so_has_ratios_of_another_kind() -> None:
    kinds = {
        name: load_config("cg-digits", {"method": name}).client_settings().ratio_kind
        for name in ("fedavg", "greedy", "bmsfed", "bmsfed-release")  # greedy's ratio is a width
    }
    assert kinds == {
        "fedavg": "score",
        "greedy": "score",
        "bmsfed": "score",
        "bmsfed-release": "accuracy",
    }


def test_a_number_in_a_name_is_checked_as_any_setting() -> None:
    settings = load_config("cg-digits", {"method": "fedavg-0.3-fix"}).method_settings()
    assert settings.model_dump() == {"head_columns": "own", "uni_weight": 0.0, "drop": 0.3}
    with pytest.raises(ConfigError, match=r"method 'fedavg-1.5': drop: .*less than or equal to 1"):
        load_config("cg-digits", {"method": "fedavg-1.5"})


def test_a_methods_own_callbacks_stay_beside_those_given() -> None:
    given = {"method": "private-head", "callbacks.missing-modality": {}}
    assert load_config("cg-digits", given).callbacks == {"personal": {}, "missing-modality": {}}


def test_overrides_find_their_place() -> None:
    config = load_config(
        "cg-digits", {"chi": "1.7", "lr": "0.5", "test_color_correlation": "0.2", "rounds": 3}
    )
    assert bmsfed(config).chi == 1.7
    assert (config.lr, config.rounds) == (0.5, 3)
    assert config.dataset_settings["test_color_correlation"] == 0.2


def test_a_dotted_key_is_merged_into_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "dataset: table\n"
        "dataset_settings:\n"
        "  classes: [calm, tense]\n"
        "  modalities: {left: &photo {type: image, side: 32}, right: *photo}\n"
        "encoders: {left: conv4}\n"
        "methods: {mine: {base: bmsfed, chi: 3}, fedavg-0.5: {head_columns: all}}\n"
        "callbacks:\n"
    )
    config = load_config(
        str(file),
        {
            "dataset_settings.modalities.left.side": "64",
            "dataset_settings.split": "fold",
            "modalities.left.crop": "false",  # the data set's keys need no prefix, as ever
            "encoders.right": "resnet18",
            "methods.mine.pick": "single",
            "methods.fedavg-0.5.drop": "0.25",
            "callbacks.tensorboard": "{}",
            "callbacks.missing-modality.every": "5",
        },
    )
    modalities = config.dataset_settings["modalities"]
    assert modalities == {
        "left": {"type": "image", "side": 64, "crop": False},
        "right": {"type": "image", "side": 32},  # what YAML lets it share with left stays apart
    }
    assert config.dataset_settings["split"] == "fold"
    assert config.encoders == {"left": "conv4", "right": "resnet18"}
    assert config.methods == {
        "mine": {"base": "bmsfed", "chi": 3, "pick": "single"},
        "fedavg-0.5": {"head_columns": "all", "drop": 0.25},
    }
    assert config.callbacks == {"tensorboard": {}, "missing-modality": {"every": 5}}


def test_overrides_may_say_what_names_other_things(tmp_path: Path) -> None:
    """A method's variant, and what a data set cannot be without."""
    config = load_config(
        "cg-digits", {"method": "mine", "methods.mine.base": "fedprox", "methods.mine.mu": "0.5"}
    )
    assert config.methods["mine"] == {"base": "fedprox", "mu": 0.5}
    file = tmp_path / "mine.yaml"
    file.write_text("dataset: table")
    columns = "{a: {type: text, column: x}, b: {type: text}}"
    given = {"classes": "['no', 'yes']", "dataset_settings.modalities": columns}
    assert load_config(str(file), given).dataset_info().modalities == ("a", "b")


def test_overrides_are_left_as_they_were() -> None:
    given = {"methods": {"bmsfed": {"chi": 2.0}}, "chi": "1.5", "encoders": {}, "seed": 3}
    before = copy.deepcopy(given)
    assert bmsfed(load_config("cg-digits", given)).chi == 1.5
    assert given == before


def test_a_text_that_looks_like_a_number_stays_a_text() -> None:
    config = load_config("cg-digits", {"data_dir": "2024", "method": "fedavg"})
    assert config.data_dir == str(Path.cwd() / "2024")


def test_pairs_of_one_text_are_split_as_a_shell_does() -> None:
    text = """lr=0.1 "callbacks={missing-modality: {every: 5}}" 'encoders.gray=conv4'"""
    assert split_pairs(text) == {
        "lr": "0.1",
        "callbacks": "{missing-modality: {every: 5}}",
        "encoders.gray": "conv4",
    }
    with pytest.raises(ConfigError, match=r"set: No closing quotation in 'lr=.0\.1'"):
        split_pairs('lr="0.1')


def test_a_partition_travels_to_the_clients() -> None:
    given = {"partition": "file", "partition_file": "sites.csv", "subsets": "[[gray], [colored]]"}
    config = load_config("cg-digits", given | {"whole_share": 0.5, "data_fraction": 0.5})
    found = read_partition(config.client_settings().partition)
    assert found == config.division()
    assert found.model_dump() == {
        "partition": "file",
        "clients": 0,
        "partition_file": str(Path.cwd() / "sites.csv"),
        "data_fraction": 0.5,
        "validation": 0.0,
        "min_samples": 1,
        "samples_per_client": 0,
        "whole_share": 0.5,
        "subsets": (("gray",), ("colored",)),
        "missing": None,
    }
    as_sent = json.loads(json.dumps(config.client_settings().to_json()))
    assert ClientSettings.from_json(as_sent) == config.client_settings()


def test_presets_of_the_paper_change_what_they_say() -> None:
    whole = load_config("cg-mnist")
    noniid, incongruity = load_config("cg-mnist-noniid"), load_config("cg-mnist-incongruity")
    assert noniid == whole.model_copy(update={"partition": "dirichlet", "alpha": 2.0})
    assert incongruity == whole.model_copy(update={"whole_share": 0.5})


def test_a_file_extends_another(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "base.yaml").write_text(
        "extends: cg-digits\nrounds: 7\nlr: 0.5\n"
        "methods: {bmsfed: {chi: 3.0}, mine: {base: fedprox, mu: 0.5}}"
    )
    file = tmp_path / "below" / "mine.yaml"
    file.write_text("extends: ../base.yaml\nrounds: 9\nmethods: {bmsfed: {pick: single}}")
    config, shipped = load_config(str(file)), load_config("cg-digits")
    assert (config.rounds, config.lr, config.batch_size) == (9, 0.5, shipped.batch_size)
    # Merged one level deep: a method's own settings are replaced whole.
    assert config.methods == shipped.methods | {
        "bmsfed": {"pick": "single"},
        "mine": {"base": "fedprox", "mu": 0.5},
    }
    assert load_config(str(file), {"rounds": "2"}).rounds == 2


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("extends: a.yaml",), r"'a.yaml' extends itself: mend 'extends'"),
        (("extends: b.yaml", "extends: ../{0}/a.yaml"), "extends itself"),
        (("extends: nowhere.yaml",), "cannot read the configuration 'nowhere.yaml'"),
        (("extends: cg-digit",), "no configuration 'cg-digit'; did you mean 'cg-digits'"),
        (("extends: [cg-digits]",), "extends: the name or path of a configuration, not"),
        (("extends: cg-digits\nroudns: 3",), "unknown key 'roudns'"),
    ],
)
def test_what_cannot_be_extended_is_refused(
    tmp_path: Path, texts: tuple[str, ...], message: str
) -> None:
    for name, text in zip("ab", texts, strict=False):
        (tmp_path / f"{name}.yaml").write_text(text.format(tmp_path.name))
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(str(tmp_path / "a.yaml"))
    assert "\n" not in str(caught.value)


def test_the_data_folder_is_absolute_whoever_reads_it() -> None:
    config = load_config("cg-mnist", {"data_dir": "mnist"})
    assert config.client_settings().data_dir == str(Path.cwd() / "mnist")
    assert load_config("cg-mnist").data_dir == ""


def test_every_method_builds_its_settings_and_travels() -> None:
    for name in METHODS.names():
        config = load_config("cg-digits", {"method": name})
        settings = config.client_settings()
        assert ClientSettings.from_json(settings.to_json()) == settings


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"lr": 0.001, "lr_min": 0.002, "decay_from": 0.5}, r"lr_min: 0\.002 is above lr \(0\.001\)"),
    ({"encoder.gray": "mlp"}, "unknown key 'encoder'.*did you mean 'encoders'"),
    ({"encoders.grey": "mlp"}, "encoders: .*no modality 'grey'; did you mean 'gray'"),
    (
        {"dataset_settings.color_nois": "1"},
        "unknown key 'dataset_settings.color_nois' .*did you mean 'color_noise'",
    ),
    ({"methods.bmsfde.chi": "1"}, "methods.bmsfde: unknown method .*did you mean 'bmsfed'"),
    ({"methods.bmsfed.chii": "1"}, "method 'bmsfed': unknown key 'chii'; did you mean 'chi'"),
    ({"partition_settings.alfa": "1"}, "unknown key 'alfa'"),
    ({"lr.rate": "1"}, r"'lr.rate': 'lr' is 0.01, which has no keys: give lr=VALUE"),
    (
        {"dataset_settings.color_noise": "0.1", "dataset_settings.color_noise.red": "1"},
        r"'dataset_settings.color_noise' is 0\.1, which has no keys",
    ),
    ({"methods.bmsfed": "3"}, "methods.bmsfed: expected keys with values.*not 3"),
    ({"dataset_settings": "3"}, "dataset_settings: expected keys with values.*not 3"),
    ({"encoders.": "mlp"}, r"'encoders\.' is no key: .*encoders\.NAME=VALUE"),
    ({"callbacks": "{tensorboard: "}, r"callbacks: '\{tensorboard: ' is not valid YAML"),
    ({"metod": "fedavg"}, "unknown key 'metod'.*did you mean 'method'"),
    ({"method": "fedavgg"}, "unknown method 'fedavgg'; did you mean 'fedavg'"),
    ({"dataset": "cg-mnits"}, "unknown data set 'cg-mnits'; did you mean 'cg-mnist'"),
    ({"chii": "1"}, "unknown key 'chii' for method 'bmsfed'.*did you mean 'chi'"),
    ({"partition": "dirichlett"}, "unknown partition 'dirichlett'; did you mean 'dirichlet'"),
    ({"partition": "file"}, "partition_file: empty; partition: file needs a CSV file"),
    ({"sigma": "-1"}, "sigma: .*greater than or equal to 0"),
    ({"classes_per_client": "0"}, "classes_per_client: .*greater than or equal to 1"),
    ({"samples_per_client": "3", "min_samples": "4"}, r"at least min_samples \(4\), not 3"),
    ({"whole_share": "1.5"}, "whole_share: .*less than or equal to 1"),
    ({"method": "greedy", "eps": "-1"}, "eps: .*greater than or equal to 0"),
    ({"method": "greedy", "eps": ".nan"}, "eps: .*greater than or equal to 0"),
    ({"method": "greedy", "q": "0"}, "q: .*greater than or equal to 1"),
    (
        {"method": "g-blending", "methods.g-blending.holdout": "-0.1"},
        "holdout: .*greater than or equal to 0",
    ),
    (
        {"method": "g-blending", "methods.g-blending.holdout": "0.6"},
        "holdout: .*less than or equal to 0.5",
    ),
    (
        {"method": "g-blending", "methods.g-blending.holdout": "0"},
        "holdout: 0, but weights are estimated on samples",
    ),
    ({"subsets": "[[colord]]"}, "subsets: no modality 'colord'; did you mean 'colored'"),
    ({"subsets": "[[]]"}, "subsets: an empty one holds nothing"),
    ({"subsets": "[colored]"}, "subsets.0: .*valid list"),
    ({"alpha": "0"}, "alpha: .*greater than 0, not 0"),
    ({"alpha": "-1"}, "alpha: .*greater than 0"),
    ({"rounds": "0"}, "rounds: .*greater than or equal to 1"),
    ({"rounds": "many"}, "rounds: .*valid integer.*'many'"),
    ({"per_round": "31"}, "per_round: 31 clients a round of 30"),
    ({"per_round": "2.5"}, "neither a whole number"),
    ({"chi": "-1"}, "chi: .*greater than or equal to 0"),
    ({"gradient": "exact"}, "gradient: .*'decoupled' or 'update'"),
    ({"seed": "-3"}, "seed: .*greater than or equal to 0"),
    ({"schedule": "cosin"}, "schedule: unknown schedule 'cosin'; did you mean 'cosine'"),
    ({"momentum": "1.0"}, "momentum: .*less than 1"),
    ({"color_noise": "-1"}, "color_noise"),
    (
        {"encoders": "{gray: gru}"},
        r"encoders.gray: encoder gru takes .*not \(1, 28, 28\)",
    ),
    ({"encoders": "{grey: mlp}"}, "encoders: .*no modality 'grey'; did you mean 'gray'"),
    ({"widths": "{grey: 3}"}, "widths: .*no modality 'grey'; did you mean 'gray'"),
    ({"widths": "{gray: 3}"}, "encoders.gray: encoder conv4 has features of width 512, not 3"),
    ({"widths": "{gray: 0}"}, "widths.gray: .*greater than or equal to 1"),
    (
        {"initial_weights": "{grey: a.pt}"},
        "initial_weights: .*did you mean 'gray'",
    ),
    (
        {"initial_weights": "{gray: nowhere.pt}"},
        "initial_weights.gray: there is no file '/.*pt'",
    ),
    (
        {"initial_weights": "{gray: nowhere.bin}"},
        "weights.gray: '.*bin' is neither a .safetensors",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED)
def test_bad_values_are_refused_by_name(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=f"(?s){message}") as caught:
        load_config("cg-mnist", overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: [unclosed", "not valid YAML"),
        ("just words", "holds no keys"),
        ("dataset: cg-digits\nroudns: 3", "unknown key 'roudns'; did you mean 'rounds'"),
        ("dataset: cg-digits\nmethods: {mine: {chi: 1}}", "needs 'base: <method>'"),
        ("dataset: cg-digits\nmethods: {bmsfed: {chy: 1}}", "unknown key 'chy'.*'chi'"),
        (
            "dataset: cg-digits\ndataset_settings: {noise: 1}",
            "unknown key 'dataset_settings.noise'",
        ),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(str(file))


def test_a_missing_file_and_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"cannot read the configuration 'nowhere.yaml'"):
        load_config("nowhere.yaml")
    with pytest.raises(ConfigError, match="did you mean 'cg-mnist'"):
        load_config("cg-mnis")


def test_learning_rate_is_continuous_at_the_joint() -> None:
    config = load_config("cg-digits", {"rounds": 11, "lr": 0.1, "lr_min": 0.01, "decay_from": 0.5})
    rates = [config.learning_rate(r) for r in range(1, 12)]
    assert rates[:6] == [0.1] * 6
    assert rates[-1] == pytest.approx(0.01)
    steps = [b - a for a, b in itertools.pairwise(rates[5:])]
    assert steps == pytest.approx([-0.018] * 5)


def test_every_schedule_starts_at_lr_and_stays_between_the_two() -> None:
    given = {"rounds": 11, "lr": 0.1, "lr_min": 0.01, "decay_from": 0.5}
    ends = {"linear": 0.01, "cosine": 0.01, "constant": 0.1}
    assert set(ends) == set(SCHEDULES.own)
    for name, last in ends.items():
        config = load_config("cg-digits", given | {"schedule": name})
        rates = [config.learning_rate(r) for r in range(1, 12)]
        assert rates[:6] == [0.1] * 6
        assert rates[-1] == pytest.approx(last)
        assert rates == sorted(rates, reverse=True)
    half = load_config("cg-digits", given | {"schedule": "cosine", "decay_from": 0.0})
    assert half.learning_rate(6) == pytest.approx(0.055)  # half-way in time and in height


def test_a_schedule_of_ones_own_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES.own, "halving", lambda progress, lr, *_: lr / 2**progress)
    config = load_config("cg-digits", {"schedule": "halving", "rounds": 3, "lr": 0.4})
    assert config.learning_rate(3) == 0.2
