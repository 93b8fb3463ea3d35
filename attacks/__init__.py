"""Base classes that attacks in plugins and packages may use, besides those of `bench.api.attack`."""

from attacks.helpers.external_model import ExternalModel
from attacks.helpers.poisoning import CountedPoisoning, TriggerPoisoning, exchange

__all__ = ["CountedPoisoning", "ExternalModel", "TriggerPoisoning", "exchange"]
