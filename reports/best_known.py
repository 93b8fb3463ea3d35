"""The hardest attack known for each defense, and the strongest defense known against each attack.

A list is a file to which lines are only added (METHODOLOGY.md#best-known). Each line holds one result, and the checksum
of the line before it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from bench.api.errors import UserError
from bench.api.kinds import Access, DefenseKind
from bench.api.untrusted import UntrustedError, parse_json, read_bytes
from bench.config.trial import Spec, canonical, digest
from bench.engine.record import Model, Sha256, signed
from bench.engine.store import REFERENCE, write_whole
from reports import noise_floor
from reports.compare import CLOSE

FILE = "best_known.jsonl"
LIMIT = 2**26  # bytes of a list
START = "0" * 64  # in the place of a checksum before the first line
POISON_RATES = (0.0, 0.01, 0.05, 0.1, 1.0)  # limits of a budget
PSNR = (30.0, 20.0, 10.0, 0.0)  # in dB: a mean squared change of .001, .01, .1 or anything
OWN_MAP, AUROC = "own_map", "auroc"  # metrics by which results are compared
HINT = "restore the file, for example with `git checkout`: lines are only added to it"


class Claim(StrEnum):
    """What an entry is the best of: of all attacks against its defense, or of all defenses against its attack."""

    ATTACK = "hardest attack"
    DEFENSE = "strongest defense"


class Budget(Model):
    """Limits that an attack keeps. poison_rate: largest share of the training set. psnr: smallest PSNR, in dB."""

    access: Annotated[Access, Field(strict=False)]
    poison_rate: Annotated[float, Field(ge=0, le=1)]
    psnr: Annotated[float, Field(ge=0)]

    @classmethod
    def of(cls, access: Access, poison_rate: float | None, psnr: float | None) -> Budget:
        """The tightest budget of these measured values. None: no poison, no changed pixel."""
        rate, quality = poison_rate or 0.0, math.inf if psnr is None else psnr
        return cls(
            access=access,
            # a stranger's store may hold any number
            poison_rate=next((limit for limit in POISON_RATES if rate <= limit), POISON_RATES[-1]),
            psnr=next((limit for limit in PSNR if quality >= limit), PSNR[-1]),
        )

    def within(self, other: Budget) -> bool:
        """Whether an attack of this budget is allowed under the other one."""
        return self.access == other.access and self.poison_rate <= other.poison_rate and self.psnr >= other.psnr


class Setting(Model):
    """What results must share to be compared. training: changes of the recipe. targets x seeds: the cells."""

    dataset: Spec
    backbone: Spec
    method: Spec
    bits: int
    training: dict[str, Any]
    surrogate: str
    augment: str
    protocol_digest: str
    metrics_version: str
    targets: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]

    @cached_property
    def task(self) -> str:
        """Digest of all but the cells, equal for equal tasks; later versions may add parameters with a default."""
        components = [_named(spec) for spec in (self.dataset, self.backbone, self.method)]
        return digest([components, self.model_dump(exclude={"dataset", "backbone", "method", "targets", "seeds"})])

    @cached_property
    def identity(self) -> str:
        """Digest that is equal for comparable results."""
        return digest([self.task, sorted(self.targets), sorted(self.seeds)])

    @property
    def n(self) -> int:
        """The number of cells."""
        return len(self.targets) * len(self.seeds)


class Result(Model):
    """An attack after a defense: means over the cells of the setting.

    poison_rate, psnr: the largest and the smallest over the cells; None without any. auroc: of the main score of an
    input detector; None for other defenses. map_clean, own_map_control: of the clean model without the defense.
    attack_kept, defense_kept: whether the attacked model, and the model after the defense, keep the mAP.
    """

    setting: Setting
    attack: Spec
    defense: Spec
    defense_kind: Annotated[DefenseKind, Field(strict=False)]
    budget: Budget
    poison_rate: float | None
    psnr: float | None
    t_map: float
    t_map_control: float
    own_map: float
    own_map_control: float
    map: float
    map_clean: float
    attack_kept: bool
    defense_kept: bool
    auroc: float | None = None

    @property
    def metric(self) -> str:
        """The metric that tells how much the defense does."""
        return OWN_MAP if self.auroc is None else AUROC

    @property
    def damage(self) -> float:
        """What the attack still does: own-mAP lost, or for an input detector 1 - AUROC."""
        return self.own_map_control - self.own_map if self.auroc is None else 1 - self.auroc

    @property
    def floor(self) -> float:
        """How far the damage moves by chance (METHODOLOGY.md#noise-floor), for a mean over the cells."""
        kinds = (self.metric, self.attack.name, self.defense_kind)
        found = [one.p95 for source in noise_floor.CHANCE if (one := noise_floor.floor_of(*kinds, source)) is not None]
        return max(found, default=CLOSE) / math.sqrt(self.setting.n)

    def may(self, claim: Claim) -> bool:
        """Whether the result counts: an attack, or a defense, that costs much mAP does not."""
        return self.attack_kept if claim is Claim.ATTACK else self.defense_kept

    def subject(self, claim: Claim) -> str:
        """Digest that is equal for results of which one is the best."""
        return subject(claim, self.setting, self.defense if claim is Claim.ATTACK else self.attack, self.metric)


class Origin(Model):
    """Where results come from. bundle: beginning of its checksum. run: id. commit: of HashDoor; "" if installed."""

    suite: str
    bundle: str
    run: str
    commit: str
    added: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class Entry(Result, Origin):
    """A line of a list. improves: what it was the best of when it was added. previous: checksum of the line before."""

    improves: Annotated[list[Annotated[Claim, Field(strict=False)]], Field(min_length=1)]
    previous: Sha256


ResultT = TypeVar("ResultT", bound=Result)


@dataclass(frozen=True)
class Improvement:
    """A result that is better than what is known, and in which respect."""

    result: Result
    improves: tuple[Claim, ...]


def _named(spec: Spec) -> list[Any]:
    return [spec.name, dict(spec.given)]


def subject(claim: Claim, setting: Setting, component: Spec, metric: str) -> str:
    """What a claim is about: a defense, or an attack, in a setting, by a metric."""
    return digest([claim, setting.identity, _named(component), metric])


def beats(claim: Claim, new: Result, old: Result) -> bool:
    """Whether a result is better than another one by more than noise."""
    gain = new.damage - old.damage if claim is Claim.ATTACK else old.damage - new.damage
    return gain > max(new.floor, old.floor)


def improvements(known: Iterable[Result], results: Iterable[Result], claim: Claim) -> list[Result]:
    """The results that are better than all known ones of their subject and budget. Their order plays no role.

    known: those that count for the claim.
    """
    sign = -1 if claim is Claim.ATTACK else 1
    ordered = sorted(  # tight budgets first: what is reached with less is no improvement with more
        (one for one in results if one.may(claim)),
        key=lambda one: (one.budget.poison_rate, -one.budget.psnr, sign * one.damage, canonical(one.model_dump())),
    )
    held, found = _by_subject(claim, known), list[Result]()
    for one in ordered:
        rivals = held.setdefault(one.subject(claim), [])
        if all(beats(claim, one, old) for old in rivals if claim is Claim.DEFENSE or old.budget.within(one.budget)):
            rivals.append(one)
            found.append(one)
    return found


def _by_subject(claim: Claim, results: Iterable[ResultT]) -> dict[str, list[ResultT]]:
    found: dict[str, list[ResultT]] = {}
    for one in results:
        found.setdefault(one.subject(claim), []).append(one)
    return found


@dataclass(frozen=True)
class BestKnown:
    """A list. path: for messages. head: checksum of the last line."""

    entries: tuple[Entry, ...]
    path: Path
    head: str = START

    def attack(self, setting: Setting, defense: Spec, metric: str, budget: Budget) -> Entry | None:
        """The hardest attack known for a defense within a budget."""
        held = self._held[Claim.ATTACK].get(subject(Claim.ATTACK, setting, defense, metric), [])
        return max((one for one in held if one.budget.within(budget)), key=lambda one: one.damage, default=None)

    def defense(self, setting: Setting, attack: Spec, metric: str) -> Entry | None:
        """The strongest defense known against an attack."""
        held = self._held[Claim.DEFENSE].get(subject(Claim.DEFENSE, setting, attack, metric), [])
        return min(held, key=lambda one: one.damage, default=None)

    def current(self, claim: Claim) -> list[Entry]:
        """The entries that no other one surpasses, of attacks within their budget, in the order of the list."""
        found = []
        for one in self._counted(claim):
            best = (
                self.attack(one.setting, one.defense, one.metric, one.budget)
                if claim is Claim.ATTACK
                else self.defense(one.setting, one.attack, one.metric)
            )
            found += [one] if best is one else []
        return found

    def improved_by(self, results: Iterable[Result]) -> list[Improvement]:
        """The results that the list lacks. Those over fewer cells than the list has for their task do not count."""
        most: dict[str, int] = {}
        for entry in self.entries:
            most[entry.setting.task] = max(most.get(entry.setting.task, 0), entry.setting.n)
        counted = [one for one in results if one.setting.n >= most.get(one.setting.task, 0)]
        better = {claim: improvements(self._counted(claim), counted, claim) for claim in Claim}
        found = ((one, tuple(c for c in Claim if any(one is other for other in better[c]))) for one in counted)
        return [Improvement(one, improves) for one, improves in found if improves]

    def extended(self, found: Iterable[Improvement], origin: Origin) -> BestKnown:
        """The list with these results; equal for equal results, whatever their order."""
        entries, head = [*self.entries], self.head
        for one in sorted(found, key=lambda one: canonical(one.result.model_dump())):
            values = one.result.model_dump() | origin.model_dump()
            entries.append(Entry.model_validate(values | {"improves": list(one.improves), "previous": head}))
            head = str(signed(entries[-1].model_dump())["checksum"])
        return BestKnown(tuple(entries), self.path, head)

    def _counted(self, claim: Claim) -> list[Entry]:
        return [entry for entry in self.entries if claim in entry.improves]

    @cached_property
    def _held(self) -> dict[Claim, dict[str, list[Entry]]]:
        return {claim: _by_subject(claim, self._counted(claim)) for claim in Claim}


def parsed(content: bytes, path: Path) -> BestKnown:
    """The list in the content of a file. UserError if a line was changed, removed or moved since it was added."""
    entries, head = list[Entry](), START
    for number, line in enumerate(content.splitlines(), 1):
        why = f"line {number} of '{path}' is no entry of a list of best known results"
        try:
            given = parse_json(line)
            entry = Entry.model_validate(given)
            checksum = given.pop("checksum", None)
        except (ValueError, AttributeError):
            raise UserError(why, HINT) from None
        if checksum != signed(given)["checksum"]:
            raise UserError(f"line {number} of '{path}' was changed after it was added", HINT)
        if entry.previous != head:
            raise UserError(f"lines before line {number} of '{path}' were removed, moved or changed", HINT)
        entries.append(entry)
        head = checksum
    return BestKnown(tuple(entries), path, head)


def read(path: Path) -> BestKnown:
    """The list in a file; an empty one if there is none. UserError if it cannot be read, or is no longer whole."""
    if not path.exists():
        return BestKnown((), path)
    try:
        return parsed(read_bytes(path, LIMIT), path)
    except (OSError, UntrustedError) as error:
        raise UserError(f"'{path}' cannot be read ({error})", "give another --list") from None


def append(known: BestKnown, found: Iterable[Improvement], origin: Origin) -> BestKnown:
    """Add results to the end of a list's file. UserError if it cannot be written, or has changed since it was read."""
    made = known.extended(found, origin)
    # the checksum ignores the order of parameters, labels keep it
    lines = [
        json.dumps(signed(entry.model_dump()), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        for entry in made.entries[len(known.entries) :]
    ]
    try:
        held = read_bytes(known.path, LIMIT) if known.path.exists() else b""
        if parsed(held, known.path).head != known.head:
            raise UserError(f"'{known.path}' has changed since it was read", "start the same command again")
        held += b"\n" if held and not held.endswith(b"\n") else b""  # an editor may have cut it off
        write_whole(known.path, held + "".join(f"{line}\n" for line in lines).encode())
    except (OSError, UntrustedError) as error:
        raise UserError(f"'{known.path}' cannot be written ({error})", "give another --list") from None
    return made


def shipped_path() -> Path:
    """The list that this package ships."""
    return Path(str(resources.files("bench") / REFERENCE / FILE))


@cache
def shipped() -> BestKnown:
    """The list that this package ships."""
    return read(shipped_path())
