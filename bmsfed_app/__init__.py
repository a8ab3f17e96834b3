"""Balanced modality selection for multi-modal federated learning, on Flower."""

from strategies import BMSFed, FedAvg, ModalityStrategy

__version__ = "0.1.0"

__all__ = ["BMSFed", "FedAvg", "ModalityStrategy", "__version__"]
