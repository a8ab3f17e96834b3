"""One registry for everything that has a name."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bmsfed_app import registry
from bmsfed_app.registry import Registry


def with_points(monkeypatch: pytest.MonkeyPatch, **points: str) -> Registry[object]:
    found = [EntryPoint(name, value, "t.things") for name, value in points.items()]
    monkeypatch.setattr(
        registry, "entry_points", lambda group: found if group == "t.things" else []
    )
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
    with pytest.raises(ValueError, match="'a' is registered twice"):
        things.add("a", max)


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
