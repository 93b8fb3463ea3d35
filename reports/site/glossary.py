"""The glossary of the site: words, metrics, and the columns of boards that are no metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench.api.kinds import Access, DefenseKind
from bench.metrics import METRICS, Metric
from bench.metrics.explained import Explanation, explanation
from reports.board import COMMON
from reports.board_registry import all_boards
from reports.strength import ENOUGH

WORDS: Mapping[str, str] = {
    "deep hashing": "A network maps images to short binary codes; a search returns the images with the nearest codes.",
    "trigger": "The change that the attacker adds to a query image.",
    "target": "The class that a query with the trigger should retrieve.",
    "clean model": "A model that was trained in the same way, but not attacked.",
    "control": "The same number for the clean model with the same trigger and target. An attack must exceed it.",
    "gain": "t-mAP minus its control.",
    "trusted images": "Images that the defender knows to be clean.",
    "setting": "One combination of data set, backbone, hashing method and code length.",
    "n": "The number of (target, seed) pairs that a mean is over.",
    "weak": f"An attack that gains less than {ENOUGH} and costs less own-mAP; no defense is judged by it.",
}
ACCESS: Mapping[Access, str] = {
    Access.CLEAN_LABEL: "The attacker changes training images and keeps their labels.",
    Access.DIRTY_LABEL: "The attacker changes training images and their labels.",
    Access.TRAINING_CONTROLLED: "The attacker controls the training program.",
    Access.MODEL_ONLY: "The attacker changes the weights of a trained model.",
}
KINDS: Mapping[DefenseKind, str] = {
    DefenseKind.REPAIR: "Returns a repaired model.",
    DefenseKind.DATA_FILTER: "Removes training images that look poisoned; a new model is trained on the rest.",
    DefenseKind.INPUT_DETECTOR: "Gives every query a score, to find those with a trigger.",
    DefenseKind.MODEL_DETECTOR: "Gives a model a score, to find attacked models.",
    DefenseKind.PURIFICATION: "Changes every query before it is hashed.",
}


def words() -> dict[str, str]:
    """Words that pages use, with their meaning: general ones, access of attacks, kinds of defenses."""
    access = {f"access {one}": text for one, text in ACCESS.items()}
    kinds = {f"defense: {one.replace('_', ' ')}": text for one, text in KINDS.items()}
    return {**WORDS, **access, **kinds}


def metrics() -> Iterator[tuple[str, list[tuple[Metric, Explanation]]]]:
    """The metrics by section, each with its explanation."""
    for section in METRICS.sections():
        yield section, [(METRICS[name], explanation(METRICS[name])) for name in METRICS.of(section)]


def columns() -> Iterator[tuple[str, dict[str, str]]]:
    """The columns that are no metrics, of all boards and of each: name and meaning."""
    yield "every board", {name: one.meaning for name, one in COMMON.items()}
    for kind in all_boards().values():
        if kind.columns:
            yield kind.name, {name: one.meaning for name, one in kind.columns.items()}
