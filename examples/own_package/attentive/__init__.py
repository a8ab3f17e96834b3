"""A head, an objective, a metric and a callback of one's own for bmsfed."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmsfed_app.models import Head, Output
from client_app.objectives import Objective
from strategies import Callback, Decisions, RoundReport


class GatedAttention(Head):
    """``logits = b + sum_m a_m W_m z_m``, with a the softmax of gated scores of the modalities.

    ``score_m = q · (tanh(U_m z_m) * sigmoid(V_m z_m))`` (Ilse et al., 2018). What is named by
    modality is averaged over those that trained it, ``query`` and ``bias`` over all.
    """

    def __init__(self, widths: dict[str, int], num_classes: int, *, width: int = 32) -> None:
        super().__init__()

        def by_modality(rows: int) -> nn.ParameterDict:
            return nn.ParameterDict(
                {m: nn.Parameter(torch.empty(rows, d)) for m, d in widths.items()}
            )

        self.value, self.gate, self.weight = map(by_modality, (width, width, num_classes))
        self.query = nn.Parameter(torch.empty(1, width))
        self.bias = nn.Parameter(torch.empty(num_classes))

    def attention(self, features: dict[str, Tensor]) -> Tensor:
        """Return the weights (B, a) of the modalities that are there; they sum to 1."""
        gated = [
            F.linear(z, self.value[m]).tanh() * F.linear(z, self.gate[m]).sigmoid()
            for m, z in features.items()
        ]
        return torch.cat([F.linear(g, self.query) for g in gated], dim=1).softmax(dim=1)

    def parts(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        shares = self.attention(features).split(1, dim=1)
        pairs = zip(features.items(), shares, strict=True)
        return {m: share * F.linear(z, self.weight[m]) for (m, z), share in pairs}

    def fuse(self, parts: dict[str, Tensor]) -> Tensor:
        return torch.stack(list(parts.values())).sum(dim=0) + self.bias


class Focal(Objective):
    """``mean (1 - p_y)^gamma CE``: what is easy counts less (Lin et al., 2017)."""

    def __init__(self, *, gamma: float = 2.0) -> None:
        self.gamma = gamma

    def loss(self, output: Output, labels: Tensor) -> Tensor:
        losses = F.cross_entropy(output.logits, labels, reduction="none")
        return ((1 - torch.exp(-losses)) ** self.gamma * losses).mean()


def worst_class(labels, probabilities) -> float:
    """Accuracy of the class that does worst."""
    right = probabilities.argmax(axis=1) == labels
    return min(right[labels == c].mean() for c in set(labels.tolist()))


class LossBoard(Callback):
    """Every client's training loss in TensorBoard: ``tensorboard --logdir RUN/losses``."""

    def __init__(self, watched) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(watched.folder / "losses"))

    def after_round(self, strategy: Decisions, report: RoundReport) -> None:
        for client in report.trained:
            self.writer.add_scalar(client.client_id, client.metrics["loss"], report.round)

    def on_end(self, strategy: Decisions, error: BaseException | None) -> None:
        self.writer.close()
