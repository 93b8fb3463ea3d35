"""Central Similarity Quantization: train the code of each image towards the hash centre of its class."""

from __future__ import annotations

from bench.api.card import Card
from bench.api.hashing import method
from hashing.methods.helpers.centres import CentreMethod

CARD = Card(
    name="CSQ",
    title="Central Similarity Quantization for Efficient Image and Video Retrieval",
    venue="CVPR",
    year=2020,
    url="https://arxiv.org/abs/1908.00347",
    follows="Hadamard centres, binary cross-entropy to the centre, a quantisation term; the centre of several labels is"
    " their majority vote, with ties broken by one fixed random vector",
    deviates="the quantisation term is (|tanh u| - 1)^2 as in DeepHash-pytorch, not the paper's log cosh; numbers of"
    " bits without a Sylvester matrix (such as 48) use Paley's construction or else balanced random rows; recipe from"
    " DeepHash-pytorch",
)


@method
class CSQ(CentreMethod):
    pass
