"""Labels of components, as short as a table needs them. Data keep the whole label: it is what a component is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.config.trial import commas

_KEY = re.compile(r"[A-Za-z_]\w*=")


def parse(label: str) -> tuple[str, tuple[str, ...]]:
    """Name and parameters (`key=value`) of a label; one that is not of this form is a name as a whole."""
    name, bracket, inner = label.partition("(")
    if not (name and bracket and inner.endswith(")") and _KEY.match(inner)):
        return label, ()
    inner = inner[:-1]
    # a comma inside a value has no `key=` behind it
    ends = [i for i in commas(inner) if inner.startswith(" ", i + 1) and _KEY.match(inner, i + 2)]
    starts = [0, *(i + 2 for i in ends)]
    return name, tuple(inner[start:end] for start, end in zip(starts, [*ends, len(inner)], strict=True))


@dataclass(frozen=True)
class Names:
    """short: what to print for each label. legend: what the short names of a component leave out, a line each."""

    short: Mapping[str, str]
    legend: tuple[str, ...]

    @classmethod
    def of(cls, labels: Iterable[str]) -> Names:
        """Without the parameters that all labels of one name share; different labels stay different."""
        variants: dict[str, dict[str, tuple[str, ...]]] = {}
        for label in sorted(set(labels)):
            name, parameters = parse(label)
            variants.setdefault(name, {})[label] = parameters
        short: dict[str, str] = {}
        legend = []
        for name, mine in variants.items():
            first = next(iter(mine.values()))
            shared = [part for part in dict.fromkeys(first) if all(part in parts for parts in mine.values())]
            made = {label: _joined(name, [p for p in parts if p not in shared]) for label, parts in mine.items()}
            if not shared or len(set(made.values())) < len(made):  # the order may be all that differs
                made = {label: label for label in mine}
            else:
                legend.append(f"{name}: {', '.join(shared)}.")
            short |= made
        return cls(short, tuple(legend))

    def within(self, text: str) -> str:
        """A text with the short names in place of labels."""
        if text in self.short:
            return self.short[text]
        whole = sorted((label for label in self.short if "(" in label), key=len, reverse=True)
        if not whole or "(" not in text:
            return text
        # labels that stay as they are take part too: another label may be inside their brackets
        pattern = rf"(?<![\w-])(?:{'|'.join(map(re.escape, whole))})"
        return re.sub(pattern, lambda match: self.short[match[0]], text)


def _joined(name: str, parameters: Iterable[str]) -> str:
    inner = ", ".join(parameters)
    return f"{name}({inner})" if inner else name
