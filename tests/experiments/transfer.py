"""How much of a confusing perturbation other models feel: the table to read before any ordering of CIBA's variants.

    python -m tests.experiments.transfer DATA

Two clean models per setting differ in initialisation and batch order, nothing else: the attacker's surrogate and an
independent one. With public weights, a third model is of another family. 60 images of a class are perturbed on the
surrogate and rounded to 8 bits. Printed per model: bits of shift from the image's own clean code / mean distance of a
pair of perturbed images (METHODOLOGY.md#transfer).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor

from attacks.helpers.confusing import STEP, objective, offset_by, perturb
from bench.api import registry
from bench.api.hashing import Recipe
from bench.api.random import Rng
from bench.api.types import Codes, Split, to_8bit, to_unit
from hashing.inference import encode
from hashing.loader import Augmentation
from hashing.model import HashModel, build_model, fit_normalisation
from hashing.train import fit

POISONS, TARGETS = 60, ("bird", "dog", "ship")
SAME = {"on the surrogate": 1, "on an independent model": 0}  # seeds
SETTINGS = {
    "mobilenet_v2, public weights, ciba_pairwise 48 bits, 1,000 images at 96 px": {
        "dataset": {"size": 96, "train": 1000},
        "backbone": ("mobilenet_v2", {"frozen": 14}),
        "family": ("efficientnet_lite0", {"frozen": 12}),
        "method": ("ciba_pairwise", {"divide": "bits"}),
        "bits": 48,
        "augmentation": Augmentation(flip=False, pad=0),
        "recipe": Recipe(optimizer="sgd", lr=5e-3, momentum=0.9, weight_decay=5e-4, batch=24, epochs=80,
                         schedule="cosine", batch_norm="eval", precision="float32"),
    },
    "convnet(width=32) from scratch, csq 32 bits, 5,000 images at 32 px": {
        "dataset": {"size": 32, "train": 5000},
        "backbone": ("convnet", {"width": 32}),
        "method": ("csq", {}),
        "bits": 32,
        "augmentation": Augmentation(flip=True, pad=2),
        "recipe": Recipe(optimizer="adamw", lr=1e-2, weight_decay=5e-4, batch=128, epochs=20, schedule="onecycle"),
    },
}  # fmt: skip


def clean_model(setting: dict, train: Split, classes: int, seed: int, network: str = "backbone") -> HashModel:
    name, params = setting[network]
    method, settings = setting["method"]
    rng = Rng("victim", seed)
    model = build_model(
        backbone=registry.create("backbones", name, params), method=registry.create("methods", method, settings),
        bits=setting["bits"], image_shape=tuple(train.images.shape[1:]), classes=classes, train_size=len(train),
        rng=rng,
    )  # fmt: skip
    fit_normalisation(model, train.images)
    fit(model, train, setting["recipe"], rng, augmentation=setting["augmentation"])
    return model.eval().requires_grad_(requires_grad=False)


def moved(model: HashModel, images: Tensor, variant: str, eps: float, rng: Rng) -> Tensor:
    if variant == "noise":
        return offset_by(images, eps * (2 * rng.uniform(images.shape) - 1), eps)
    lam = {"adv": 0.0, "ciba": 0.8}[variant]

    def maximise(codes: Codes, clean: Codes) -> Tensor:
        return objective(codes, clean, lam)

    return perturb(model, images, maximise, eps=eps, iterations=20, step=STEP * eps, batch=20)


def felt(model: HashModel, clean: Tensor, images: Tensor) -> tuple[float, float]:
    """Bits of shift and mean pair distance of hard codes."""
    before, after = (encode(model, to_8bit(some), device=model.device).sign() for some in (clean, images))
    bits, n = after.shape[1], len(after)
    pairs = (bits - after @ after.T).sum() / 2 / (n * (n - 1))
    return float((bits - (before * after).sum(1)).mean() / 2), float(pairs)


def main(data: Path) -> None:
    for title, setting in SETTINGS.items():
        dataset = registry.create("datasets", "cifar10", {"query": 500, "database": 1000, **setting["dataset"]})
        pool = dataset.decode(data)
        index = dataset.splits(pool.labels, pool.origin, Rng("split", "cifar10", dataset.protocol_version))["train"]
        train = Split(pool.images[index], pool.labels[index], index)
        classes = dataset.classes(data)
        models = {where: clean_model(setting, train, len(classes), seed) for where, seed in SAME.items()}
        if "family" in setting:
            models[f"on {setting['family'][0]}"] = clean_model(setting, train, len(classes), 0, "family")
        surrogate, *_ = models.values()
        rows = []
        images = [to_unit(train.images[train.labels[:, classes.index(name)]][:POISONS]) for name in TARGETS]
        for eps in (0, 2, 4, 8, 16):
            for variant in ("noise", "adv", "ciba") if eps else ("none",):
                felt_by = torch.zeros(len(models), 2)
                for number, clean in enumerate(images):
                    rng = Rng("transfer", number)
                    changed = moved(surrogate, clean, variant, eps / 255, rng) if eps else clean
                    felt_by += torch.tensor([felt(model, clean, changed) for model in models.values()])
                trials = [f"{a:.1f} / {b:.1f}" for a, b in (felt_by / len(images)).tolist()]
                rows.append([f"{eps}/255", variant, *trials])
                print(rows[-1], flush=True)
        print(f"\n{title}; mean of {', '.join(TARGETS)}\n")
        print(tabulate(rows, headers=["eps", "variant", *models]), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
