"""Takes a network apart into a chain of blocks, after the stages that the network itself names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import fx, nn

CONSTANT = "get_attr"  # the operation that reads a parameter or a constant of the network


class _Whole(nn.Module):
    """The network as a function of images alone: its other arguments keep their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Any) -> Any:  # no tensors: the tracer passes what records operations
        return self.network(images)


class _Tracer(fx.Tracer):
    """Looks into the network and into the modules around its stages. All other modules stay whole."""

    def __init__(self, stages: Collection[str]) -> None:
        super().__init__()
        parts = [stage.split(".") for stage in stages]
        self._around = {".".join(part[:end]) for part in parts for end in range(1, len(part))}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        del m
        return module_qualified_name not in self._around


def chain_of(network: nn.Module, stages: Collection[str]) -> list[nn.Module]:
    """The blocks of a network [n 3 h w] -> [n d]: one up to the end of each stage, and one for what follows the last.

    stages: names of modules of the network. The blocks hold the network's own modules and parameters; dropout outside
    of modules is left out. ValueError: the network cannot be taken apart; the message tells why.
    """
    whole, ends = _Whole(network), {f"network.{stage}" for stage in stages}
    modes = {module: module.training for module in network.modules()}
    try:
        graph = _Tracer(ends).trace(whole.eval())  # dropout that is a plain function would be active for ever
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        raise ValueError("what it computes depends on values, so that it cannot be taken apart") from error
    for module, mode in modes.items():
        module.training = mode
    parts: list[list[fx.Node]] = [[]]
    for node in graph.nodes:
        if node.op not in {"placeholder", "output", CONSTANT}:
            parts[-1].append(node)
            if node.target in ends:
                parts.append([])
    inputs = next(node for node in graph.nodes if node.op == "placeholder")
    blocks: list[nn.Module] = []
    for part in filter(None, parts):
        inner = set(part)
        given = {source for node in part for source in node.all_input_nodes if source not in inner}
        if {source for source in given if source.op != CONSTANT} != {inputs}:
            raise ValueError("it passes more than one tensor from stage to stage, so that it is no chain")
        blocks.append(fx.GraphModule(whole, _graph_of(part, inputs)))
        inputs = part[-1]
    return blocks


def _graph_of(part: Sequence[fx.Node], inputs: fx.Node) -> fx.Graph:
    """A graph of some nodes whose only input is the value of `inputs`; it ends with the last of the nodes."""
    graph = fx.Graph()
    copies = {inputs: graph.placeholder("hidden")}
    for node in part:
        for source in node.all_input_nodes:
            if source not in copies:  # a constant
                copies[source] = graph.node_copy(source)
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[part[-1]])
    return graph
