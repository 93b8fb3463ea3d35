"""The summary of a run: what was run, three sentences about the results of each setting, and warnings.

The page and the console show it first. It holds text and numbers, no markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bench.engine.record import YEAR_9900
from bench.engine.record_cache import RecordCache
from reports import findings
from reports.board_registry import BoardData
from reports.boards.model_detectors import ENOUGH_MODELS
from reports.findings import AttackFinding, DefenseFinding, Setting, Verdicts
from reports.frame import Results
from reports.selection import NONE, with_result
from reports.strength import ENOUGH

NAMED = 5  # attacks that a sentence names
NEAR_CHANCE = 1 / 3  # of the way from chance to 1; below it, a clean model retrieves too badly to say much of an attack
SCALE = "t-mAP; in brackets: clean model"
SUCCESS = 0.5  # t-mAP from which a high control is worth a warning


@dataclass(frozen=True)
class Headline:
    """The results of one setting in three sentences (attacks, defenses, what is not known).

    warnings: where a number means less than it seems to.
    """

    setting: Setting
    sentences: tuple[str, str, str]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """A run in short.

    started, ended: in UTC; None if no record says. machines: those that computed the results, as boards name them.
    statuses: number of trials by how they ended. headlines: one per setting, the one with most results first.
    """

    suites: Mapping[str, str]
    command: str
    started: datetime | None
    ended: datetime | None
    machines: tuple[str, ...]
    statuses: Mapping[str, int]
    headlines: tuple[Headline, ...]

    @property
    def scope(self) -> str:
        """The setting of the first headline, and how many others there are."""
        if not self.headlines:
            return "No trial has a result."
        first = self.headlines[0].setting
        cells = first.cells
        size = f"{_count(len(cells.targets), 'target')} x {_count(len(cells.seeds), 'seed')}"
        others = f"; the largest of {len(self.headlines)} settings" if self.headlines[1:] else ""
        return f"{first.name} (n = {len(cells.places)}: {size}{others})"

    @property
    def when(self) -> str:
        """The date and the time of the results; "" if unknown."""
        if self.started is None or self.ended is None:
            return ""
        same = self.started.date() == self.ended.date()
        return f"{self.started:%Y-%m-%d %H:%M} to {self.ended:{'%H:%M' if same else '%Y-%m-%d %H:%M'}} UTC"

    @property
    def sentences(self) -> tuple[str, ...]:
        """The sentences about the setting with most results."""
        return self.headlines[0].sentences if self.headlines else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings about the setting with most results."""
        return self.headlines[0].warnings if self.headlines else ()


def of(results: Results, record_cache: RecordCache, mixed: bool = False) -> Summary:
    """The summary of these results. mixed: whether versions may be mixed, as for boards."""
    return of_data(BoardData(results, record_cache, mixed))


def of_data(data: BoardData) -> Summary:
    """The summary of the results that boards are made from."""
    results = data.results
    started, ended = _time(results, data.record_cache)
    return Summary(
        suites=results.suites,
        command=results.command,
        started=started,
        ended=ended,
        machines=tuple(dict.fromkeys(with_result(results.trials)["computed_on"])),
        statuses={str(status): int(n) for status, n in results.trials["status"].value_counts().items()},
        headlines=tuple(headline(one) for one in findings.of(data)),
    )


def headline(setting: Setting) -> Headline:
    """The sentences and warnings of one setting."""
    warnings = tuple(_warnings(setting))
    return Headline(setting, (_attacks(setting), _defenses(setting), _unknown(setting)), warnings)


def _time(results: Results, record_cache: RecordCache) -> tuple[datetime | None, datetime | None]:
    keys = with_result(results.trials)["key"]
    records = filter(None, map(record_cache.record, keys))
    costs = [record.cost for record in records if record.cost and record.cost.started]  # bundles have no times
    if not costs:
        return None, None
    first, last = min(one.started for one in costs), max(one.started + one.seconds for one in costs)
    return datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(min(last, YEAR_9900), UTC)


# Attacks


def _attacks(setting: Setting) -> str:
    measured = [one for one in setting.attacks if one.t_map is not None]
    if not measured:
        return "No attack was measured without a defense."
    strong, weak = ([one for one in measured if one.strong is wanted] for wanted in (True, False))
    if not strong:
        return f"No attack works ({SCALE}): {_strengths(weak)}."
    some = f"{len(strong)} of {len(measured)} attacks {'works' if len(strong) == 1 else 'work'}"
    every = "The attack works" if len(measured) == 1 else f"All {len(measured)} attacks work"
    first = some if weak else every
    fails = f" Too weak: {_strengths(weak)}." if weak else ""
    return f"{first} ({SCALE}): {_strengths(strong)}. {_price(strong)}{fails}"


def _strengths(attacks: Sequence[AttackFinding]) -> str:
    named = [f"{one.name} {_number(one.t_map)} ({_number(one.control)}{_more(one)})" for one in attacks[:NAMED]]
    return _joined(named, len(attacks) - NAMED)


def _more(one: AttackFinding) -> str:
    """What a reader must know beside t-mAP: a target of afterwards; an attack that only disturbs retrieval."""
    disturbs = one.strong and (one.gain or 0.0) < ENOUGH
    lost = f", own-mAP {_number(one.own_map)} instead of {_number(one.own_control)}" if disturbs else ""
    return f"{', post hoc' if one.afterwards else ''}{lost}"


def _price(attacks: Sequence[AttackFinding]) -> str:
    """What these attacks cost: mAP of benign queries and poisoned images."""
    lost = max((-one.map_change for one in attacks if one.map_change is not None), default=None)
    shares = [one.poisoned_share for one in attacks if one.poisoned_share]
    several = len(attacks) > 1
    words = []
    if lost is not None:
        price = f"{'at most ' if several else ''}{_number(lost)} mAP of benign queries" if lost >= 0.0005 else "no mAP"
        words.append(f"{'cost' if several else 'costs'} {price}")
    if shares:
        low, high = (f"{100 * share:.3g}" for share in (min(shares), max(shares)))
        range_ = low if low == high else f"{low} to {high}"
        who = "poison" if several else "poisons"
        some = "those that poison take" if len(shares) < len(attacks) else who
        words.append(f"{some} {range_} % of the training images")
    return f"{'They' if several else 'It'} {' and '.join(words)}." if words else ""


# Defenses


def _defenses(setting: Setting) -> str:
    if not setting.defenses and not setting.verdicts:
        return "No defense was measured."
    parts = [_changing(setting), _detecting(setting), _judging(setting)]
    return " ".join(filter(None, parts)) or "No attack is strong enough to judge a defense by."


def _changing(setting: Setting) -> str:
    """The best and the weakest of the defenses that change the model or the queries, each by its hardest attack."""
    judged = [one for one in setting.changing if one.worst is not None]
    if not judged:
        return ""
    best, worst = judged[0], judged[-1]
    which = (
        f"Of {len(judged)} defenses that change the model or the queries, {best.name} does most against its"
        if judged[1:] else f"{best.name}, against its"
    )  # fmt: skip
    found = f"{which} hardest attack, {best.hardest}: {_recovered(best)}"
    if best.clean_map is not None and setting.clean_map is not None:
        found += f"; a clean model keeps {_number(best.clean_map)} of {_number(setting.clean_map)} mAP"
    if worst.name != best.name:
        found += f". Least: {worst.name} against {worst.hardest}, {_recovered(worst)}"
    return f"{found}."


def _recovered(one: DefenseFinding) -> str:
    effect = one.effects[one.hardest]
    return (
        f"own-mAP from {_number(effect.own_map_before)} to {_number(effect.own_map)} (clean model"
        f" {_number(effect.own_control)}), t-mAP from {_number(effect.t_map_before)} to {_number(effect.t_map)}"
    )


def _detecting(setting: Setting) -> str:
    judged = [one for one in setting.detectors if one.worst is not None]
    if not judged:
        return ""
    best, worst = judged[0], judged[-1]
    found = f"At 5 % false alarms, the input detector {best.name} finds {_share(best.worst)} of the triggered queries"
    found += f" of its hardest attack, {best.hardest}"
    if worst.name != best.name:
        found += f"; {worst.name} finds {_share(worst.worst)} ({worst.hardest})"
    return f"{found}."


def _judging(setting: Setting) -> str:
    """The models that each model detector flags, of attacks that are strong and of clean models."""
    strong = {one.name for one in setting.attacks if one.strong}
    found = []
    for name in dict.fromkeys(one.name for one in setting.verdicts):
        mine = [one for one in setting.verdicts if one.name == name]
        attacked, clean = (flagged(mine, kinds) for kinds in (strong, {NONE}))
        if attacked:
            found.append(f"{name} flags {attacked} attacked models" + (f" and {clean} clean ones" if clean else ""))
    return f"Model detection: {_joined(found[:NAMED], len(found) - NAMED)}." if found else ""


def flagged(verdicts: Sequence[Verdicts], attacks: set[str]) -> str:
    """The flagged models of these attacks, as "3 of 4"; the board prints "3/4" and an interval for each attack."""
    rates = [one.flagged.partition(" ")[0].split("/") for one in verdicts if one.attack in attacks and one.flagged]
    hits, models = (sum(int(rate[i]) for rate in rates) for i in (0, 1))
    return f"{hits} of {models}" if models else ""


# What is not known


def _unknown(setting: Setting) -> str:
    reasons = list(_reasons(setting))
    if not reasons:
        return "Not known: whether this holds in other settings; intervals and ranks stand on the boards."
    return f"Not known: {'; '.join(reasons)}."


def _reasons(setting: Setting) -> Iterator[str]:
    cells = setting.cells
    if not cells.inference:
        few = [f"one {what}" for what, values in (("target", cells.targets), ("seed", cells.seeds)) if len(values) == 1]
        why = " and ".join(few) or "targets and seeds not crossed"
        yield f"how much of this is chance ({why}: no interval, no rank)"
    if _near_chance(setting):
        yield "what an attack does to a model that retrieves well, because clean mAP is near chance"
    if names := [one.name for one in _high_controls(setting)]:
        yield f"how much of the t-mAP of {_some(names)} is due to the backdoor, because the control is high"
    if names := [one.name for one in setting.attacks if one.t_map is not None and not one.strong and setting.defenses]:
        yield f"what defenses do against {_some(names)} (too weak to judge)"
    if _uncalibrated(setting):
        models = f"{_clean_models(setting)} of {ENOUGH_MODELS} clean models"
        yield f"verdicts of model detectors at 5 % false alarms ({models})"
    if lost := setting.planned - setting.results:
        yield f"{lost} of {setting.planned} trials, which have no result"


def _warnings(setting: Setting) -> Iterator[str]:
    if _near_chance(setting):
        yield (
            f"Clean mAP is {_number(setting.clean_map)}, near chance ({_number(setting.chance_map)}): gains mean"
            " little. Train longer, with more images, or from pretrained weights."
        )
    for one in _high_controls(setting):
        yield (
            f"{one.name}: the clean model reaches {_number(one.control)} of the t-mAP {_number(one.t_map)} with the"
            " same trigger. Read the gain, not t-mAP."
        )
    if _uncalibrated(setting):
        yield (
            f"Model detectors: {_count(_clean_models(setting), 'clean model')}, and a verdict at 5 % false alarms needs"
            f" {ENOUGH_MODELS} of other seeds. Run more seeds of the attack none."
        )
    context = setting.context
    if context.other_code:
        yield f"{_count(context.other_code, 'result')} of older code left out: run the suite again."
    if context.version_count > 1:
        yield f"{context.version_count} versions of code or machine measured this setting; each is shown on its own."


def _near_chance(setting: Setting) -> bool:
    clean, chance = setting.clean_map, setting.chance_map
    return clean is not None and chance is not None and clean - chance < NEAR_CHANCE * (1 - chance)


def _high_controls(setting: Setting) -> list[AttackFinding]:
    """The attacks with a high t-mAP of which the clean model reaches at least half."""
    return [
        one for one in setting.attacks
        if one.t_map is not None and one.control is not None and one.t_map >= SUCCESS and 2 * one.control >= one.t_map
    ]  # fmt: skip


def _uncalibrated(setting: Setting) -> bool:
    return any(one.attack != NONE for one in setting.verdicts) and not any(one.calibrated for one in setting.verdicts)


def _clean_models(setting: Setting) -> int:
    return max((one.models for one in setting.verdicts if one.attack == NONE), default=0)


def _some(names: Sequence[str]) -> str:
    return _joined(names[:NAMED], len(names) - NAMED)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}".replace("-0.000", "0.000")


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.0f} %"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _joined(names: Sequence[str], more: int = 0) -> str:
    if more > 0:
        return f"{', '.join(names)} and {more} more"
    return f"{', '.join(names[:-1])} and {names[-1]}" if names[1:] else "".join(names)
