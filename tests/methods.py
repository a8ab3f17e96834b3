"""Methods as tests want them."""

from __future__ import annotations

from bmsfed_app.methods import METHODS, MethodSettings, find_method


def method_with(objective: str) -> MethodSettings:
    """Settings of a method that has an objective, acting in all rounds."""
    for name in METHODS.names():
        settings = find_method(name)()
        if settings.objective()[0] == objective:
            until = {"until": 1.0} if "until" in type(settings).model_fields else {}
            return find_method(name)(**until)
    raise AssertionError(f"no method has {objective}")
