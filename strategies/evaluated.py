"""The models that a method's accuracy is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from .messages import Arrays, Prototypes


@dataclass(frozen=True)
class EvaluationModel:
    """One model that a strategy's accuracy is made of.

    Attributes
    ----------
    name : str
        Whose model it is.
    version : int
        The round it is from: a model of the same name and version need not be evaluated again.
    weight : float
        Of its accuracy in the mean over all models.
    arrays : dict
        The model by state-dict name; it may lack modalities.
    prototypes : dict
        Prototypes of training data by modality.
    absent : dict
        See :meth:`strategies.Decisions.absent_logits`.
    """

    name: str
    version: int
    weight: float
    arrays: Arrays
    prototypes: dict[str, Prototypes]
    absent: Arrays = field(default_factory=dict)
