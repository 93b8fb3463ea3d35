"""Whether a victim learned at all: a failed training is no result, rather than a weak attack."""

from __future__ import annotations

from bench.metrics.context import ModelCodes, TrialFacts, mean_of
from bench.metrics.registry import Number, metric
from bench.metrics.retrieval import HEALTH

MIN_LEARNT_SHARE = 0.1  # a clean model that went a smaller part of the way from chance to 1 has learnt nothing
MIN_KEPT_SHARE = 0.5  # a victim that keeps less of what the clean model has above chance has collapsed


@metric(
    "map_chance", title="chance mAP", direction=0, section=HEALTH, meaning="mAP of a random ranking of benign queries"
)
def chance(codes: ModelCodes) -> Number:
    return mean_of(codes.benign.chance())


@metric(
    "collapsed", title="collapsed", direction=-1, section=HEALTH,
    meaning="1 if the training of the undefended victim or of the clean model failed, so that there is no result",
)  # fmt: skip
def of_trial(trial: TrialFacts) -> Number:
    # the cost of an attack that trains the model itself is a result; only a victim's own training can fail
    trained = trial.attack is None or trial.attack.trained
    victim = mean_of(trial.model.benign_ap) if trained and not trial.repaired else None
    return collapsed(victim, mean_of(trial.clean.benign_ap), mean_of(trial.clean.benign.chance()))


def has_not_learnt(clean: float, chance: float) -> bool:
    """Whether a clean model collapsed itself: MIN_LEARNT_SHARE."""
    return clean - chance < MIN_LEARNT_SHARE * (1 - chance)


def collapsed(victim: float | None, clean: float | None, chance: float | None) -> float | None:
    """1.0 where training failed, from benign mAP; else 0.0.

    victim: mAP of the implanted model without defense. None where its codes are not at hand, as after a repair, which
    may cost mAP of its own: there only the clean model is judged, and boards use the undefended trial's verdict.
    """
    if clean is None or chance is None:
        return None
    lost = victim is not None and victim <= chance + (1 - MIN_KEPT_SHARE) * (clean - chance)
    return float(lost or has_not_learnt(clean, chance))
