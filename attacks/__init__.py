"""What attacks in files and packages outside may build on, beside `bench.api.attack`."""

from attacks._brought import Brought
from attacks._poisoning import Dosed, StampedPoison, exchange

__all__ = ["Brought", "Dosed", "StampedPoison", "exchange"]
