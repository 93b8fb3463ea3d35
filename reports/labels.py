"""Short names of components for tables. Data formats keep the whole label, which identifies the component."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bench.api import registry
from bench.api.card import Card
from bench.api.untrusted import look_alikes, spelled, strip_controls
from bench.config.trial import Spec


def label_of(spec: Spec) -> str:
    """The label of a component in tables."""
    return strip_controls(spec.label)


@dataclass(frozen=True)
class Names:
    """short: the printed name of each label.

    warnings: a line per pair of names that look alike. parameters: a line per component with the parameters that short
    names omit.
    """

    short: Mapping[str, str]
    warnings: tuple[str, ...]
    parameters: tuple[str, ...]

    @property
    def legend(self) -> tuple[str, ...]:
        """All lines."""
        return (*self.warnings, *self.parameters)

    @classmethod
    def of(cls, specs: Iterable[Spec], written: Mapping[str, str] = MappingProxyType({})) -> Names:
        """Names without the parameters that all variants of a component share; different labels stay different.

        written: how papers write the names of components (see `written_in_papers`).
        """
        variants: dict[str, dict[str, tuple[str, ...]]] = {}
        for spec in sorted(specs, key=label_of):
            settings = tuple(map(strip_controls, spec.settings))
            variants.setdefault(strip_controls(spec.name), {})[label_of(spec)] = settings
        short: dict[str, str] = {}
        legend, warnings = (
            [],
            [
                f"Warning: {spelled(one)} and {spelled(other)} are different names that look the same."
                for one, other in look_alikes(label for mine in variants.values() for label in mine)
            ],
        )
        for name, mine in variants.items():
            first = next(iter(mine.values()))
            shared = [part for part in dict.fromkeys(first) if all(part in parts for parts in mine.values())]
            title = written.get(name, name)
            made = {label: _joined(title, [p for p in parts if p not in shared]) for label, parts in mine.items()}
            if not shared or len(set(made.values())) < len(made):  # labels may differ in the order of parameters only
                made = {label: title + label.removeprefix(name) for label in mine}
            else:
                legend.append(f"{title}: {', '.join(shared)}.")
            short |= made
        if len(set(short.values())) < len(short):  # a plugin may name a component like the label of another one
            return cls({label: label for label in short}, tuple(warnings), ())
        return cls(short, tuple(warnings), tuple(legend))

    def within(self, text: str) -> str:
        """The text with short names in place of labels."""
        if text in self.short:
            return self.short[text]
        whole = sorted((label for label in self.short if "(" in label), key=len, reverse=True)
        if not whole or "(" not in text:
            return text
        # unchanged labels are matched too, because their brackets may contain another label
        pattern = rf"(?<![\w-])(?:{'|'.join(map(re.escape, whole))})"
        return re.sub(pattern, lambda match: self.short[match[0]], text)


def written_in_papers() -> Mapping[str, str]:
    """The names of components as papers write them, from their cards; none for a name that two kinds have."""
    cards: dict[str, list[str]] = {}
    for kind in registry.KINDS:
        for name, source in registry.catalogue(kind).items():
            card = None if source.error else registry.card(source)
            cards.setdefault(name, []).append(_written(name, card) if card is not None else "")
    return {name: found[0] for name, found in cards.items() if len(found) == 1 and found[0]}


def _written(name: str, card: Card) -> str:
    """The name on a card: the declared one, or the beginning of the title (`BadNets: ...`) if it is the component's."""
    title = re.split(r":| - ", card.title, maxsplit=1)[0]
    return card.name or (title if re.sub(r"\W", "", title).lower() == name.replace("_", "") else "")


def _joined(name: str, parameters: Iterable[str]) -> str:
    inner = ", ".join(parameters)
    return f"{name}({inner})" if inner else name
