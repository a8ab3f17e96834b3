"""A federation as Flower's interfaces see it: a round is opened by one call and closed by another.

What Flower's Message API and its classic interface have in common; each adds its own messages.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..callbacks import RoundReport
from ..decisions import Decisions
from ..messages import Arrays
from .dialects import Keys, Modded, Native, Plain
from .errors import FederationError
from .loop import FederatedRun, OpenRound
from .parts import Parts, Patterns
from .registrar import Dialects
from .transport import Answer, Transport

log = logging.getLogger("flwr")

_Way = TypeVar("_Way")


class Session:
    """Rounds of one method with clients of any app.

    Parameters
    ----------
    decisions : Decisions
    patterns : mapping, optional
        The model's parameters by part: see :class:`strategies.federation.parts.Parts`.
    keys : Keys
    whole : bool
        Whether everybody is sent the whole model.
    app_version : str, optional
        Clients of our app that run another version are refused.

    Attributes
    ----------
    report : RoundReport or None
        The last complete round.
    parts : Parts or None
        The model's names by part; made of the first model unless given before.
    """

    def __init__(
        self,
        decisions: Decisions,
        patterns: Patterns | None,
        keys: Keys,
        *,
        whole: bool,
        app_version: str | None,
    ) -> None:
        self.decisions, self.patterns, self.keys = decisions, patterns, keys
        self.whole, self.app_version = whole, app_version
        self.report: RoundReport | None = None
        self._run: FederatedRun | None = None
        self._way: object = None
        self.parts: Parts | None = None
        self._open: OpenRound | None = None

    def accept(self, model: Arrays) -> None:
        """Take the global model by its own names; what was aggregated before is forgotten.

        Raises
        ------
        ValueError
            If the names do not fit the parts, or have changed, or the method needs another model.
        """
        self.parts = self.parts or Parts(model, self.patterns)
        self.parts.check(model)
        self.decisions.state.arrays = self.parts.inside(model)
        self.decisions.check_model()

    def open(
        self,
        server_round: int,
        config: Mapping[str, Any],
        way: _Way,
        transport: Callable[[_Way], Transport],
    ) -> OpenRound:
        """Enrol and measure who is new, decide, and make the messages; a model was accepted.

        Parameters
        ----------
        config : mapping
            The user's own entries of what clients are sent.
        way : object
            How clients are reached; another one than before begins with unknown clients.
        transport : callable
            Makes a transport of it.

        Raises
        ------
        FederationError
            If no client can be selected.
        """
        if self._run is None or self._way is not way:
            self._way, self._run = way, self._begin(transport(way))
        for dialect in (self._run.dialects.modded, self._run.dialects.plain):
            assert dialect is not None
            dialect.config, dialect.model = config, self.decisions.state.arrays
        self._open = self._run.open(server_round)
        log.info("%s", self._open.summary())
        return self._open

    def close(self, read: Callable[[OpenRound], Mapping[int, Answer]]) -> RoundReport | None:
        """Take over what clients trained; None, and a warning, if no answer can be used.

        Parameters
        ----------
        read : callable
            Returns the answers by node id.

        Raises
        ------
        FederationError
            If no round is open.
        """
        if self._open is None or self._run is None:
            raise FederationError("no round is open: call configure_train or configure_fit first")
        opened, self._open = self._open, None
        try:
            self.report = self._run.close(opened, read(opened))
        except FederationError as error:
            log.warning("%s", error)
            return None
        return self.report

    def arrays(self) -> Arrays:
        """Return the global model by its own names."""
        assert self.parts is not None
        return self.parts.outside(self.decisions.state.arrays)

    def _begin(self, transport: Transport) -> FederatedRun:
        assert self.parts is not None
        dialects = Dialects(
            Native(),
            Modded(self.parts, self.keys, whole=self.whole),
            Plain(self.parts, self.keys, whole=self.whole),
        )
        return FederatedRun(self.decisions, transport, dialects, app_version=self.app_version)
