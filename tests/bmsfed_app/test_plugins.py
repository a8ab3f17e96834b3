"""What an experiment takes from elsewhere: named, compared at every client, or refused by name."""

import json
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from benchmarks.common import client
from bmsfed_app.config import ConfigError, check_config, load_config
from bmsfed_app.methods import METHODS
from bmsfed_app.models import HEADS, FusionHead
from bmsfed_app.plugins import REGISTRIES, PlugIn, check_plug_ins, registry
from bmsfed_app.record.files import RunFolderError
from bmsfed_app.registry import Registry
from server_app.experiment import run_experiment
from server_app.metrics import METRICS
from server_app.run_folder import RunFolder
from strategies import FederationError
from strategies.testing import FakeGrid, Handler
from tests.plugins import describe, install, only_here

SMALL = {"method": "fedavg", "clients": 2, "per_round": 2, "rounds": 1, "data_fraction": 0.05}
MODULE = """
from bmsfed_app.models import HEADS, FusionHead
from server_app.metrics import METRICS

@HEADS.register("their-head")
class Theirs(FusionHead):
    pass

@METRICS.register("their-metric")
def constant(labels, probabilities):
    return 0.5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module that registers a head and a metric when it is imported."""
    only_here(monkeypatch, HEADS, METRICS)
    (tmp_path / "their_things.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_things", raising=False)
    yield tmp_path / "their_things.py"
    sys.modules.pop("their_things", None)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a head as an entry point."""
    (tmp_path / "their_heads.py").write_text(
        "from bmsfed_app.models import FusionHead\nclass Theirs(FusionHead): pass\n"
    )
    points = {"bmsfed.heads": {"their-head": "their_heads:Theirs"}}
    install(tmp_path, monkeypatch, points, HEADS, name="their-package", version="1.2")
    return tmp_path


def test_every_kind_of_thing_has_its_registry() -> None:
    for kind in REGISTRIES:
        found = registry(kind)
        assert isinstance(found, Registry)
        assert found.kind == kind
    groups = [registry(kind).group for kind in REGISTRIES]
    assert len(set(groups)) == len(groups)


def test_modules_of_ones_own_are_imported_before_anything_is_looked_up(module: Path) -> None:
    config = load_config(
        "cg-digits",
        {"plugins": "[their_things]", "method": "fedavg", "head": "their-head"}
        | {"metrics": ["their-metric"]},
    )
    version = config.plug_ins()[0].version
    assert version.startswith("source ")
    assert config.plug_ins() == [
        PlugIn("module", "their_things", "their_things", version),
        PlugIn("head", "their-head", "their_things", version),
        PlugIn("metric", "their-metric", "their_things", version),
    ]
    told = config.client_settings().plugins
    assert [p["kind"] for p in told] == ["module", "head"], "clients measure nothing of the test"
    with pytest.raises(ConfigError, match=r"plugins: module 'their_thing' cannot be imported \(No"):
        load_config("cg-digits", {"plugins": ["their_thing"]})
    with pytest.raises(
        ConfigError, match=r"plugins: 'their_things\.py' is a file; name the module"
    ):
        load_config("cg-digits", {"plugins": ["their_things.py"]})
    with pytest.raises(ConfigError, match="plugins: a list of modules' names, not 'their_things'"):
        load_config("cg-digits", {"plugins": "their_things"})


def test_what_is_ours_is_no_plug_in() -> None:
    given = {"optimizer": "adam", "metrics": ["uar"], "callbacks": {"missing-modality": {}}}
    assert load_config("cg-digits", given).plug_ins() == []
    assert load_config("cg-digits", {"encoders": {"gray": "resnet18"}}).plug_ins() == []


def test_a_run_notes_what_it_takes_from_elsewhere(package: Path, tmp_path: Path) -> None:
    config = load_config("cg-digits", SMALL | {"head": "their-head"})
    folder = RunFolder.create(tmp_path / "run", config)
    expected = {"kind": "head", "name": "their-head", "package": "their-package", "version": "1.2"}
    assert json.loads(folder.info_file.read_text())["plugins"] == [expected]
    state = run_experiment(FakeGrid({str(n): client(n, 2) for n in range(2)}), folder)
    assert state.round == 1

    RunFolder.reopen(folder.path)
    text = folder.info_file.read_text()
    folder.info_file.write_text(text.replace('"1.2"', '"1.1"'))
    with pytest.raises(
        RunFolderError,
        match=r"began with head 'their-head' of their-package 1\.1; here is .* 1\.2: go on with",
    ):
        RunFolder.reopen(folder.path)


def test_a_process_that_knows_nothing_yet_imports_what_it_is_told(
    module: Path, tmp_path: Path
) -> None:
    config = load_config("cg-digits", SMALL | {"plugins": ["their_things"], "head": "their-head"})
    folder = RunFolder.create(tmp_path / "run", config)

    def fresh(number: int) -> Handler:
        """A client whose process is new with every message."""
        answer, own = client(number, 2), HEADS._own

        def answered(message):
            HEADS._own = {k: v for k, v in own.items() if k != "their-head"}
            del sys.modules["their_things"], METRICS._own["their-metric"]
            return answer(message)

        return answered

    run_experiment(FakeGrid({str(n): fresh(n) for n in range(2)}), folder)
    assert "their-head" in HEADS.own


def test_a_client_with_another_version_is_refused_by_name(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("cg-digits", SMALL | {"head": "their-head", "connect_timeout": 600})
    folder = RunFolder.create(tmp_path / "run", config)
    here = HEADS._points

    def older(number: int) -> Handler:
        answer = client(number, 2)
        old = tmp_path / f"old-{number}"
        describe(
            old, {"bmsfed.heads": {"their-head": "their_heads:Theirs"}}, "their-package", "1.1"
        )

        def answered(message):

            [dist] = distributions(path=[str(old)])
            with monkeypatch.context() as there:
                there.setitem(vars(HEADS), "_points", {"their-head": list(dist.entry_points)})
                return answer(message)

        return answered

    with pytest.raises(
        FederationError,
        match=r"was refused: .*client '1': head 'their-head' of their-package 1\.1 is here, "
        r"the server uses head 'their-head' of their-package 1\.2: install their-package 1\.2",
    ):
        run_experiment(FakeGrid({"new": client(0, 2), "old": older(1)}), folder)
    assert HEADS._points is here


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (
            PlugIn("head", "gone", "their-package", "1.2"),
            r"no head 'gone' of their-package 1\.2 here .*: install their-package 1\.2 on",
        ),
        (
            PlugIn("module", "gone_things", "gone_things", "source 123"),
            r"no module 'gone_things' \(source 123\) here .*give this node .*under 'plugins'",
        ),
        (PlugIn("head", "x", "__main__", "source 1"), "registers is known to its own process"),
        (PlugIn("head", "linear", "theirs", "1.0"), r"the app's own is here, the server uses head"),
        (
            PlugIn("module", "their_things", "their_things", "source 123"),
            r"module 'their_things' \(source \w+\) is here, .* \(source 123\): give this node the",
        ),
    ],
)
@pytest.mark.usefixtures("module")
def test_what_a_client_lacks_is_named_with_the_remedy(wanted: PlugIn, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_plug_ins([wanted.to_json()])


def test_a_method_of_another_package_is_named_by_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_methods.py").write_text(
        "from bmsfed_app.methods import MethodSettings\n"
        "class Theirs(MethodSettings):\n    summary = source = 'theirs'\n"
    )
    points = {"bmsfed.methods": {"theirs": "their_methods:Theirs"}}
    install(tmp_path, monkeypatch, points, METHODS)
    given = {"dataset": "cg-digits", "method": "mine", "methods": {"mine": {"base": "theirs"}}}
    config = check_config(given)
    assert config.plug_ins() == [PlugIn("method", "theirs", "theirs", "1.0")]
    assert config.client_settings().plugins == []


def test_a_name_that_a_package_gives_does_not_take_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"bmsfed.heads": {"linear": "bmsfed_app.models:CosineHead"}}
    install(tmp_path, monkeypatch, points, HEADS)
    assert HEADS.find("linear") is FusionHead
    assert load_config("cg-digits", {"method": "fedavg", "head": "linear"}).plug_ins() == []
