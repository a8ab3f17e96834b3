"""DivFL: diverse clients by facility location (Balakrishnan et al., ICLR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from .decisions import whole
from .messages import Assignment, ClientInfo
from .selection.signatures import SignatureStrategy
from .selection.submodular import greedy_selection


class DivFL(SignatureStrategy):
    """Select clients whose gradients together stand for everyone's.

    Minimises ``G(S) = sum_k min_{i in S} ||g_k - g_i||`` by stochastic greedy (Eqs. 2-4 of the
    BMSFed paper): in each of n steps the best of a random set R of clients not yet selected joins
    S. Clients train all they hold. This is BMSFed without its choice of modalities and without
    modal enhancement.

    Signatures are cross-entropy gradients of all encoders at the received model, measured once
    when a client enrols and afresh whenever it trains ("no-overheads"); the original uses full
    gradients at the received model. A modality that a client lacks is a zero block. Averages are
    weighted by samples, as in the official code; cover counts are not used.

    State: one signature per client (16 KiB at the default ``sketch_dim``), which travels up with
    each answer.

    Takes the parameters of :class:`strategies.signatures.SignatureStrategy`.

    Source: https://openreview.net/forum?id=nwKXyFvaUm.
    """

    enhancing: ClassVar[bool] = False

    def configure_fit(self, server_round: int, clients: Sequence[ClientInfo]) -> list[Assignment]:
        """Select by stochastic greedy among the clients that have been measured (Eq. 4)."""
        known = self.measured(clients)
        if not known:
            return []
        chosen = greedy_selection(
            self.cover("multi", server_round, known),
            self.number_of_picks(clients, known),
            self.draw("select", server_round),
        )
        return [whole(known[pick.client], **pick.reasons()) for pick in chosen]
