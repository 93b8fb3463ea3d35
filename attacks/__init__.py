"""What attacks in files and packages outside may build on, beside `bench.api.attack`."""

from attacks.helpers.external_model import ExternalModel
from attacks.helpers.poisoning import Dosed, TriggerPoisoning, exchange

__all__ = ["Dosed", "ExternalModel", "TriggerPoisoning", "exchange"]
