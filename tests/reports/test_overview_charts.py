"""The heat map of defenses: its colours are shares of what the clean model keeps under the same trigger."""

from __future__ import annotations

from matplotlib.colors import to_rgb

from bench.api.kinds import DefenseKind
from reports.findings import AttackFinding, DefenseFinding, Effect
from reports.overview_charts import map_figure
from reports.palette import OWN, TARGET


def test_a_repair_that_reaches_the_clean_model_is_good_even_if_that_is_little():
    """By hand: without defense 5 % of the clean model's own-mAP of .24, after the repair all of it."""
    attack = AttackFinding("loud", "dirty-label", 0.9, 0.1, 0.8, 0.012, 0.24, 0.4, 0.0, 0.05, False, True)
    effect = Effect(strong=True, t_map=0.1, own_map=0.24, own_control=0.24)
    repair = DefenseFinding("repair", DefenseKind.REPAIR, {"loud": effect}, 0.4, "loud", 0.0)
    caught = {"loud": Effect(strong=True, tpr=0.24)}
    guard = DefenseFinding("guard", DefenseKind.INPUT_DETECTOR, caught, None, "loud", 0.24)
    axes = map_figure([attack], [repair, guard], 4.8).axes[0]
    undefended, repaired, found = (patch.get_facecolor() for patch in axes.patches)
    assert undefended[:3] == to_rgb(TARGET)
    assert repaired[:3] == to_rgb(OWN)
    assert found[:3] == to_rgb(TARGET), "a detector's best is 1"
    assert repaired[3] > undefended[3] > found[3]
