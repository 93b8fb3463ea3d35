"""Checks of hashing methods."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.api.hashing import Objective, Recipe
from bench.api.random import Rng
from bench.conformance.kit import Checks, ComponentUnderTest, require, untouched_generators
from hashing.codes import pack
from hashing.ranking import leave_one_out_map

CHECKS = Checks()
BITS, CLASSES, N = 8, 3, 12
IDS = torch.arange(N)


def labels_for(multi: bool = False) -> Tensor:
    labels = torch.eye(CLASSES, dtype=torch.bool)[IDS % CLASSES]
    if multi:
        labels[:, 0] |= IDS % 2 == 0
        labels[-1] = True
    return labels


def objective_of(subject: ComponentUnderTest) -> Objective:
    made: Objective = subject.create().objective(bits=BITS, classes=CLASSES, train_size=N, rng=Rng("objective", 0))
    return made


@CHECKS.add("Make the loss finite for logits of 0 and of 100 (logsumexp, softplus, clamps).")
def loss_and_gradient_are_finite(subject: ComponentUnderTest) -> None:
    """Loss and gradient are finite, for one or several labels and at any progress."""
    for scale in (0.0, 1.0, 100.0):
        for progress in (0.0, 0.5, 1.0):
            for multi in (False, True):
                logits = (scale * Rng("tests", "logits").normal((N, BITS))).requires_grad_()
                loss = objective_of(subject)(logits, labels_for(multi), IDS, progress)
                where = (
                    f"at logits of size {scale:g}, progress {progress:g}, {'several labels' if multi else 'one label'}"
                )
                require(loss.shape == (), f"the loss has shape {list(loss.shape)} {where}")
                require(bool(torch.isfinite(loss)), f"the loss is {float(loss.detach())} {where}")
                (gradient,) = torch.autograd.grad(loss, logits)
                require(bool(torch.isfinite(gradient).all()), f"the gradient is not finite {where}")


@CHECKS.add("Check the signs in the loss: it must fall, and images of one class must get one code.")
def learns_a_toy_set(subject: ComponentUnderTest) -> str:
    """Learns a separable toy set."""
    rng, labels = Rng("tests", "toy"), labels_for()
    unsupervised = subject.create().has_views
    # a loss of signs of few noisy views has no smooth way down: wider views and a smaller rate keep it from saturation
    noise, rate = (0.5, 0.003) if unsupervised else (0.1, 0.05)
    means = 3 * labels.float() @ torch.eye(CLASSES, 6)
    inputs = means + noise * rng.normal((N, 6))
    with rng.child("head").ambient():
        head = subject.create().head(6, BITS)
    objective = objective_of(subject)
    optimizer = torch.optim.Adam([*head.parameters(), *objective.parameters()], lr=rate)
    losses = []
    for step in range(80):
        shown = inputs if not unsupervised else torch.cat([inputs, means + noise * rng.normal((N, 6))])
        loss = objective(head(shown), labels, IDS, step / 80)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    found = leave_one_out_map(pack(head.eval()(inputs)), labels.numpy())
    before, after = (losses[0], sum(losses[-10:]) / 10) if unsupervised else (losses[1], losses[-1])
    require(after < 0.95 * before, f"the loss went from {before:.3g} to {after:.3g}")
    # without labels, images of one class are pushed apart too
    require(found > (0.8 if unsupervised else 0.99), f"mAP {found:.2f} on a separable set")
    return f"loss {before:.3g} to {after:.3g}, mAP {found:.2f}"


@CHECKS.add("Use only the `rng` of objective() for random numbers.")
def objective_depends_on_its_generator(subject: ComponentUnderTest) -> None:
    """The objective depends on its generator only."""
    logits = Rng("tests", "logits").normal((N, BITS))
    with untouched_generators():
        one, two = (float(objective_of(subject)(logits, labels_for(), IDS, 0.5).detach()) for _ in range(2))
    require(one == two, "two objectives from equal generators differ")


@CHECKS.add("Keep centres and memories in buffers (register_buffer), so that they are stored with the model.")
def objective_can_be_stored(subject: ComponentUnderTest) -> None:
    """An objective has the same loss after storing and opening."""
    logits = Rng("tests", "logits").normal((N, BITS))
    used = objective_of(subject)
    used(logits, labels_for(), IDS, 0.5)
    fresh = objective_of(subject)
    fresh.load_state_dict(used.state_dict())
    one, two = (float(each(logits, labels_for(), IDS, 0.5).detach()) for each in (used, fresh))
    require(one == two, "the loss changes after load_state_dict")


@CHECKS.add("Let relax() map logits into [-1, 1] without a change of sign, as tanh does.")
def relaxed_codes_keep_their_signs(subject: ComponentUnderTest) -> None:
    """Relaxed codes lie in [-1, 1] and have the signs of the logits."""
    logits = 3 * Rng("tests", "logits").normal((N, BITS))
    for progress in (0.0, 1.0):
        codes = subject.create().relax(logits, progress)
        require(codes.shape == logits.shape, f"{list(logits.shape)} became {list(codes.shape)}")
        require(float(codes.abs().max()) <= 1, f"a relaxed code is {float(codes.abs().max()):.3g}")
        require(torch.equal(codes > 0, logits > 0), "a sign changed")


@CHECKS.add("Let head(features, bits) return a module, and set recipe.")
def head_and_recipe(subject: ComponentUnderTest) -> str:
    """The head maps features to bits; `recipe` is a Recipe."""
    method = subject.create()
    head = method.head(5, BITS)
    require(isinstance(head, nn.Module), f"head() returns a {type(head).__name__}")
    require(head(torch.zeros(2, 5)).shape == (2, BITS), "the head does not return one logit per bit")
    require(isinstance(method.recipe, Recipe), "recipe is not a Recipe")
    return f"{method.recipe.optimizer}, lr {method.recipe.lr:g}, {method.recipe.epochs} epochs"
