"""The weight of the uni-modal losses is a setting of every method whose head is additive."""

from __future__ import annotations

import pytest

from bmsfed_app.config import ConfigError, load_config
from bmsfed_app.methods import METHODS
from bmsfed_app.models.heads import HEADS


@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_takes_it_or_refuses_it_by_its_head(method: str) -> None:
    given = {"method": method, "methods": {method: {"uni_weight": 0.5}}}
    head, _ = load_config("cg-digits", {"method": method}).chosen("head")
    if HEADS.find(head).additive:
        assert load_config("cg-digits", given).client_settings().uni_weight == 0.5
    else:
        with pytest.raises(ConfigError, match=f"uni_weight: the head '{head}' of method"):
            load_config("cg-digits", given)


def test_fedavg_uni_has_it_and_fedavg_has_not() -> None:
    weights = {
        name: load_config("cg-digits", {"method": name}).client_settings().uni_weight
        for name in ("fedavg", "fedavg-uni")
    }
    assert weights == {"fedavg": 0.0, "fedavg-uni": 1.0}
