"""One registry for everything that has a name."""

import os
import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bmsfed_app import registry
from bmsfed_app.cli.main import cli
from bmsfed_app.config import load_config
from bmsfed_app.datasets import DATASETS
from bmsfed_app.methods import METHODS
from bmsfed_app.registry import Registry
from tests.plugins import describe, install


def with_points(monkeypatch: pytest.MonkeyPatch, **points: str) -> Registry[object]:
    found = [EntryPoint(name, value, "t.things") for name, value in points.items()]
    monkeypatch.setattr(registry, "_installed", lambda path: EntryPoints(found))
    return Registry("thing", "t.things", check=lambda t: None if callable(t) else "is no function")


def test_ours_come_before_those_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    things = with_points(monkeypatch, join="os.path:join", mine="os.path:split")
    things.add("mine", len)
    assert things.names() == ["mine", "join"]
    assert things.find("mine") is len
    assert things.find("join").__name__ == "join"
    assert "join" in things
    assert "other" not in things


def test_an_unknown_name_is_answered_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    things = with_points(monkeypatch, join="os.path:join")
    with pytest.raises(
        ValueError, match=r"unknown thing 'jion'; did you mean 'join'\? \(known: jo"
    ):
        things.find("jion")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:x", "of no_such_module:x cannot be loaded .*mend or remove that package"),
        ("os.path:nothing", "of os.path:nothing cannot be loaded"),
        ("os:sep", "os:sep is no function"),
    ],
)
def test_what_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    things = with_points(monkeypatch, broken=value)
    with pytest.raises(ValueError, match=f"thing 'broken'.*{reason}"):
        things.find("broken")


def test_a_name_cannot_mean_two_things() -> None:
    things = Registry[object]("thing", "t.none")
    things.add("a", len)
    things.add("a", len)  # a module that is imported again
    with pytest.raises(ValueError, match=rf"'a' is registered twice, by {__name__} and by"):
        things.add("a", max)
    assert things.registered_by("a") == __name__


def test_what_is_registered_in_code_is_checked_as_well() -> None:
    things = Registry[object]("thing", "t.none", check=lambda t: None if callable(t) else "is odd")
    with pytest.raises(ValueError, match=rf"thing 'a': what {__name__} registers is odd"):
        things.add("a", 1)


def test_one_broken_entry_point_ends_nothing_but_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "boom_module.py").write_text("raise SystemExit('no licence')")
    broken = {group: {"boom": "boom_module:X"} for group in ("bmsfed.methods", "bmsfed.datasets")}
    install(tmp_path, monkeypatch, broken, METHODS, DATASETS)
    said = (
        r"left out: method 'boom' of boom_module:X \(theirs 1.0\) cannot be loaded \(no lic.*mend"
    )
    for command in (
        ["methods"],
        ["methods"],
        ["data", "list"],
        ["methods", "--describe", "fedavg-0.5"],
    ):
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 0, done.output
        assert "fedavg" in done.output or "cg-digits" in done.output
    assert len(re.findall(said, caplog.text)) == 1
    assert load_config("cg-digits", {"method": "fedavg-0.5"}).method_settings().drop == 0.5  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"method 'boom' of boom_module:X .*mend or remove"):
        load_config("cg-digits", {"method": "boom"})


def test_two_packages_that_give_one_name_are_both_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    things = Registry[object]("thing", "t.things")
    things.add("join", len)
    describe(tmp_path, {"t.things": {"both": "os.path:split", "same": "os:sep"}}, "other", "2.0")
    points = {"both": "os.path:join", "same": "os:sep", "join": "os.path:join"}
    install(tmp_path, monkeypatch, {"t.things": points}, things)
    assert things.usable() == {"join": len, "same": os.sep}
    with pytest.raises(ValueError, match=r"thing 'both' is given by .*: remove one of these"):
        things.find("both")
    told = " ".join(caplog.messages)
    assert "os.path:join (theirs 1.0)" in told
    assert "os.path:split (other 2.0)" in told
    assert "thing 'join' of os.path:join (theirs 1.0) is left out: 'join' is another's" in told


def test_a_file_in_the_package_is_all_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "shelf_of_things"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from bmsfed_app.registry import Registry\nTHINGS = Registry('thing', 't.none', __name__)\n"
    )
    (package / "lamp.py").write_text("from . import THINGS\nTHINGS.add('lamp', 1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    from shelf_of_things import THINGS

    assert THINGS.find("lamp") == 1
