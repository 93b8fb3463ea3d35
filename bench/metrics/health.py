"""Whether the training of a victim failed. A trial with a failed training has no result; its attack is not weak."""

from __future__ import annotations

import math

from bench.metrics.context import ModelCodes, TrialFacts, mean_of
from bench.metrics.registry import Number, metric
from bench.metrics.retrieval import HEALTH

MIN_LEARNT_SHARE = 0.1  # minimum of (mAP - chance) / (1 - chance) of a clean model; below it, training failed
MIN_KEPT_SHARE = (
    0.5  # minimum of the victim's (mAP - chance) as a share of the clean model's; below it, training failed
)


@metric(
    "map_chance",
    title="chance mAP",
    direction=0,
    section=HEALTH,
    meaning="mAP of a random ranking of benign queries",
    methodology="chance-level",
)
def chance(codes: ModelCodes) -> Number:
    return mean_of(codes.benign.chance())


@metric(
    "collapsed", title="collapsed", direction=-1, section=HEALTH,
    meaning=
           "1 if the training of the undefended victim or of the clean model failed; the trial then has no "
           "result",
    whole=True, methodology="collapsed-models",
)  # fmt: skip
def of_trial(trial: TrialFacts) -> Number:
    # a low mAP after an attack that trains the model itself is a result; only training by the victim can fail
    trained = trial.attack is None or trial.attack.trained
    model, clean = trial.unpurified_model or trial.model, trial.unpurified_clean or trial.clean
    victim = mean_of(model.benign_ap) if trained and not trial.repaired else None
    return collapsed(victim, mean_of(clean.benign_ap), mean_of(clean.benign.chance()))


@metric(
    "loss_left",
    title="loss left",
    direction=0,
    high=math.inf,
    section=HEALTH,
    meaning="mean training loss of the last epoch divided by that of the first",
    methodology="strength-over-the-training",
)
def loss_left(trial: TrialFacts) -> Number:
    """None if no victim was trained on the attacked data, and after a repair."""
    losses = trial.attack.losses if trial.attack is not None and not trial.repaired else ()
    return losses[-1] / losses[0] if losses and losses[0] > 0 else None


def has_not_learnt(clean: float, chance: float) -> bool:
    """Whether the training of a clean model failed (see MIN_LEARNT_SHARE)."""
    return clean - chance < MIN_LEARNT_SHARE * (1 - chance)


def collapsed(victim: float | None, clean: float | None, chance: float | None) -> float | None:
    """1.0 if training failed according to benign mAP, else 0.0.

    victim: mAP of the attacked model without defense, or None if its codes are missing. After a repair, which may
    reduce mAP itself, it is None: only the clean model is judged, and boards use the value of the undefended trial.
    """
    if clean is None or chance is None:
        return None
    lost = victim is not None and victim <= chance + (1 - MIN_KEPT_SHARE) * (clean - chance)
    return float(lost or has_not_learnt(clean, chance))
