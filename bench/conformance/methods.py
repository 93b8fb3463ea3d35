"""What every hashing method promises."""

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


@CHECKS.add("Write the loss so that it is finite at logits of 0 and of 100 (logsumexp, softplus, clamps).")
def loss_and_gradient_are_finite(subject: ComponentUnderTest) -> None:
    """Loss and gradient are finite, for one label and several, everywhere in the schedule."""
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


@CHECKS.add("Check signs and the meaning of similar: the loss must fall, and items of one class get one code.")
def learns_a_toy_set(subject: ComponentUnderTest) -> str:
    """Learns a separable toy set, whose codes then retrieve."""
    rng, labels = Rng("tests", "toy"), labels_for()
    inputs = 3 * labels.float() @ torch.eye(CLASSES, 6) + 0.1 * rng.normal((N, 6))
    with rng.child("head").ambient():
        head = subject.create().head(6, BITS)
    objective = objective_of(subject)
    optimizer = torch.optim.Adam([*head.parameters(), *objective.parameters()], lr=0.05)
    losses = []
    for step in range(80):
        loss = objective(head(inputs), labels, IDS, step / 80)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    found = leave_one_out_map(pack(head.eval()(inputs)), labels.numpy())
    require(losses[-1] < 0.95 * losses[1], f"the loss went from {losses[1]:.3g} to {losses[-1]:.3g}")
    require(found > 0.99, f"mAP {found:.2f} on a separable set")
    return f"loss {losses[1]:.3g} to {losses[-1]:.3g}, mAP {found:.2f}"


@CHECKS.add("Draw centres and the like from the `rng` of objective().")
def objective_is_made_from_its_generator(subject: ComponentUnderTest) -> None:
    """The objective is made from its generator alone."""
    logits = Rng("tests", "logits").normal((N, BITS))
    with untouched_generators():
        one, two = (float(objective_of(subject)(logits, labels_for(), IDS, 0.5).detach()) for _ in range(2))
    require(one == two, "two objectives of equal generators differ")


@CHECKS.add("Keep centres and memories in buffers (register_buffer), so that they are stored with the model.")
def objective_travels(subject: ComponentUnderTest) -> None:
    """An objective restored from its state gives the same loss."""
    logits = Rng("tests", "logits").normal((N, BITS))
    used = objective_of(subject)
    used(logits, labels_for(), IDS, 0.5)
    fresh = objective_of(subject)
    fresh.load_state_dict(used.state_dict())
    one, two = (float(each(logits, labels_for(), IDS, 0.5).detach()) for each in (used, fresh))
    require(one == two, "after load_state_dict the loss is another")


@CHECKS.add("relax() maps logits into [-1, 1] without turning a sign (tanh does).")
def relaxed_codes_keep_their_signs(subject: ComponentUnderTest) -> None:
    """Relaxed codes lie in [-1, 1] and have the signs of the logits."""
    logits = 3 * Rng("tests", "logits").normal((N, BITS))
    for progress in (0.0, 1.0):
        codes = subject.create().relax(logits, progress)
        require(codes.shape == logits.shape, f"{list(logits.shape)} became {list(codes.shape)}")
        require(float(codes.abs().max()) <= 1, f"a relaxed code is {float(codes.abs().max()):.3g}")
        require(torch.equal(codes > 0, logits > 0), "a sign turned")


@CHECKS.add("head(features, bits) is a module; recipe is the paper's Recipe.")
def head_and_recipe(subject: ComponentUnderTest) -> str:
    """The head maps features to bits, and there is a recipe."""
    method = subject.create()
    head = method.head(5, BITS)
    require(isinstance(head, nn.Module), f"head() gives a {type(head).__name__}")
    require(head(torch.zeros(2, 5)).shape == (2, BITS), "the head does not give one logit per bit")
    require(isinstance(method.recipe, Recipe), "recipe is no Recipe")
    return f"{method.recipe.optimizer}, lr {method.recipe.lr:g}, {method.recipe.epochs} epochs"
