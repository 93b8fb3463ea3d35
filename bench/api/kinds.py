"""Groups of attacks and defenses on the boards. Does not import torch, so that reports can use it."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["CODE_CHANGING", "RANKING_CHANGING", "Access", "DefenseKind"]


class Access(StrEnum):
    """Access that an attacker needs. Boards rank each group on its own, in this order."""

    NONE = "none"
    CLEAN_LABEL = "clean-label"
    DIRTY_LABEL = "dirty-label"
    TRAINING_CONTROLLED = "training-controlled"
    MODEL_ONLY = "model-only"


class DefenseKind(StrEnum):
    """The five kinds of defenses, and none."""

    NONE = "none"
    REPAIR = "repair"
    DATA_FILTER = "data_filter"
    INPUT_DETECTOR = "input_detector"
    MODEL_DETECTOR = "model_detector"
    PURIFICATION = "purification"


CODE_CHANGING = (DefenseKind.REPAIR, DefenseKind.DATA_FILTER)  # these give another model, whose codes differ
RANKING_CHANGING = (*CODE_CHANGING, DefenseKind.PURIFICATION)  # the codes of queries differ
