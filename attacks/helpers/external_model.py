"""Attacks that were carried out elsewhere: the attacked model is read from a file."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as validated
from torch import nn

from attacks.helpers.expected_logits import EXPECTED, compare, read_expected
from attacks.helpers.state_dicts import fitted, misfit
from bench.api.attack import Access, AttackerView, Backdoor, ModelAttack, Rng, Threat, Trigger
from bench.api.errors import DataCorruptError, DataMissingError
from bench.api.untrusted import own_path
from hashing.model import HashModel
from hashing.weight_files import read_weights

MODELS = ("model.safetensors", "model.pth", "model.pt")
REACHES = {
    Access.TRAINING_CONTROLLED: Threat.TRAINING,
    Access.DIRTY_LABEL: Threat.TRAIN_SET | Threat.LABELS,
    Access.CLEAN_LABEL: Threat.TRAIN_SET,
    Access.MODEL_ONLY: Threat.MODEL,
}

Folder = Annotated[str, Field(min_length=1), AfterValidator(own_path)]


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ExternalModel(ModelAttack, ABC):
    """An attack whose result is a file.

    path: the folder with the model. access: the threat model, by which boards group; by default the strongest one.
    """

    seed_dependent: ClassVar[bool] = False

    path: Folder
    """Folder with the file of the model and the files of the trigger."""
    access: Literal["training-controlled", "dirty-label", "clean-label", "model-only"] = "training-controlled"
    """Access of the attacker; boards group attacks by access."""

    def threat(self) -> Threat:
        return REACHES[Access(self.access)] | Threat.MODEL  # the attack replaces the clean model

    def files(self) -> tuple[Path, ...]:
        return (self.find(*MODELS), *self._expected())

    def remark(self) -> str:
        return "" if self._expected() else f"its outputs were not compared with yours (no {EXPECTED[0]})"

    def _expected(self) -> tuple[Path, ...]:
        """The file of expected logits, if there is one."""
        return tuple(file for name in EXPECTED if (file := Path(self.path) / name).is_file())[:1]

    def find(self, *names: str) -> Path:
        """The first of these files that exists in the folder; DataMissingError if none does."""
        for name in names:
            if (file := Path(self.path) / name).is_file():
                return file
        raise DataMissingError(f"'{self.path}' has no {' or '.join(names)}", "put it there, or give another path")

    def unsupported_reason(self, networks: Sequence[nn.Module]) -> str:
        file, models = self.find(*MODELS), [one for one in networks if isinstance(one, HashModel)]
        try:
            for expected in self._expected():
                read_expected(expected, models[-1].blueprint["bits"])
            return misfit(read_weights(file), models, file)
        except DataCorruptError as error:
            return str(error)

    def implant(self, view: AttackerView, trigger: Trigger, rng: Rng) -> Backdoor:
        del trigger, rng
        model, file = view.model, self.find(*MODELS)
        assert isinstance(model, HashModel)
        model.load_state_dict(fitted(read_weights(file), model, file))
        for expected in self._expected():
            compare(model, expected, view.setting.image_shape)
        return Backdoor(model)
