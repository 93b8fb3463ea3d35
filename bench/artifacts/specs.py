"""The specs of stages: names, parameters and digests, as JSON in keys and records.

This module holds types only, so that fingerprints leave it out.
"""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict  # pydantic and beartype need this one below Python 3.12

from bench.config.trial import ComponentSpec

__all__ = [
    "AimSpec", "AttackerSpec", "ComponentSpec", "DefendSpec", "EncodeSpec", "EncodeTriggeredSpec", "FilesSpec",
    "ImplantSpec", "LoadSpec", "MakeTriggerSpec", "MeasureSpec", "ScoreTriggeredSpec", "SettingSpec", "SplitSpec",
]  # fmt: skip


class LoadSpec(TypedDict):
    """content: digest of the data set's files. protocol: its name and cutoff."""

    dataset: ComponentSpec
    content: str
    classes: list[str]
    protocol: list[str | int | None]


class SplitSpec(TypedDict):
    dataset: ComponentSpec


class SettingSpec(TypedDict):
    """A victim before any attack. weights: digest of the backbone's files. recipe: the fields of a Recipe."""

    dataset: ComponentSpec
    backbone: ComponentSpec
    method: ComponentSpec
    bits: int
    seed: int
    recipe: dict[str, Any]
    weights: NotRequired[str]


class FilesSpec(TypedDict):
    """files: digest of the files that an attack reads."""

    files: NotRequired[str]


class AimSpec(TypedDict):
    """attack: the one that makes the trigger, with the parameters that the trigger depends on. target: label names.

    sources: the classes whose queries carry the trigger; empty: all (Attack.sources).
    """

    attack: ComponentSpec
    target: list[str]
    sources: list[str]


class AttackerSpec(SettingSpec):
    """The spec of an attacker's view."""

    target: list[str]


class MakeTriggerSpec(AttackerSpec, FilesSpec):
    """attack: see AimSpec. threat: see bench.access.attacker.shown."""

    attack: ComponentSpec
    threat: list[str]


class ImplantSpec(AttackerSpec, FilesSpec):
    """augment: "victim" or "none", for poisoned images. sources: see AimSpec."""

    attack: ComponentSpec
    augment: str
    sources: list[str]


class EncodeSpec(TypedDict):
    """setting: names and the number of bits, for labels. The rest is in the model's metadata."""

    setting: list[str | int]


class EncodeTriggeredSpec(EncodeSpec, AimSpec): ...


class DefendSpec(SettingSpec):
    defense: ComponentSpec


class ScoreTriggeredSpec(DefendSpec, AimSpec): ...


class MeasureSpec(TypedDict):
    bits: int
    target: list[str]
