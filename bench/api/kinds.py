"""The groups that boards sort attacks and defenses by. Free of torch, so that reports can use it."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["CODE_CHANGING", "Access", "DefenseKind"]


class Access(StrEnum):
    """What an attacker needs: the group that boards rank an attack in, in the order of the boards."""

    NONE = "none"
    CLEAN_LABEL = "clean-label"
    DIRTY_LABEL = "dirty-label"
    TRAINING_CONTROLLED = "training-controlled"
    MODEL_ONLY = "model-only"


class DefenseKind(StrEnum):
    """What a defense works on."""

    NONE = "none"
    REPAIR = "repair"
    DATA_FILTER = "data_filter"
    INPUT_DETECTOR = "input_detector"
    MODEL_DETECTOR = "model_detector"


CODE_CHANGING = (DefenseKind.REPAIR, DefenseKind.DATA_FILTER)  # these give another model, and hence other codes
