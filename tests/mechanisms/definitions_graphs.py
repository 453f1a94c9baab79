"""Graphs, trees, points: adjacency, ancestors, types of nodes, coordinates."""

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from .common import (
    Given,
    at_queries,
    causal,
    dot,
    flags,
    floats,
    ints,
    largest,
    mechanism,
    softmax,
)


def parents(z: Given, generator: torch.Generator) -> Tensor:
    """Any earlier draft token, or −1, for the tokens behind the prompt."""
    drawn = torch.rand(z.B, z.NK, generator=generator) * torch.arange(-2, z.NK - 2)
    return torch.where(torch.arange(z.NK) > 3, (drawn + 2).floor().long().clamp(max=z.NK - 1), -1)


@mechanism("tree_mask", params={"prompt": 3}, parent=parents)
def tree_mask(z: Given) -> Tensor:
    seen = torch.zeros(z.B, 1, z.NQ, z.NK, dtype=torch.bool)
    for b in range(z.B):
        for row, i in enumerate(z.i[:, 0].tolist()):
            node = i
            while node >= 0:
                seen[b, 0, row, node] = True
                node = int(z.parent[b, node])
    return softmax(dot(z), seen | (z.j < 3) & causal(z)) @ z.v


def entered(z: Given, generator: torch.Generator) -> Tensor:
    return torch.tensor([[0, 1, 2, 3, 5, 6, 8, 9, 10], [0, 1, 3, 4, 5, 6, 7, 10, 12]])


def left(z: Given, generator: torch.Generator) -> Tensor:
    return torch.tensor([[20, 8, 5, 4, 7, 7, 20, 10, 12], [1, 10, 9, 5, 9, 8, 8, 13, 13]])


@mechanism("prefix_tree", enter=entered, leave=left)
def prefix_tree(z: Given) -> Tensor:
    at = at_queries(z, z.enter)[:, None, :, None]
    seen = (z.enter[:, None, None] <= at) & (at < z.leave[:, None, None])
    return softmax(dot(z), seen) @ z.v


@mechanism(
    "graph_attention",
    params={"slope": 0.2},
    adjacent=flags("B, NK, NK"),
    left=floats("H, D"),
    right=floats("H, D"),
)
def graph_attention(z: Given) -> Tensor:
    x = (z.q * z.left[:, None]).sum(-1)[..., None] + (z.k * z.right[:, None]).sum(-1)[:, :, None]
    seen = at_queries(z, z.adjacent, 1)[:, None] | (z.i == z.j)
    return softmax(leaky_relu(x, 0.2), seen) @ z.v


@mechanism(
    "gatv2", params={"slope": 0.2, "kinds": 3}, edge=ints(3, "B, NK, NK", low=-1), kind=floats("kinds, D"),
    a=floats("H, D"),
)  # fmt: skip
def gatv2(z: Given) -> Tensor:
    edge = at_queries(z, z.edge, 1)[:, None]
    x = z.q[:, :, :, None] + z.k[:, :, None] + z.kind[edge.clamp(min=0)]
    s = (leaky_relu(x, 0.2) * z.a[:, None, None]).sum(-1)
    return softmax(s, edge >= 0) @ z.v


@mechanism(
    "graphormer", params={"far": 3}, distance=ints(6, "B, NK, NK"), path=floats("B, NK, NK, far, 2"),
    spatial=floats("far + 2, H"), edge=floats("far, 2, H"), degree=ints(7, "B, NK"), central=floats("5, D"),
)  # fmt: skip
def graphormer(z: Given) -> Tensor:
    steps = at_queries(z, z.distance, 1)
    path = at_queries(z, z.path, 1)
    each = torch.einsum("bqkij,ijh->bhqki", path, z.edge)
    on_it = torch.arange(3) < steps[:, None, :, :, None]
    along = torch.where(on_it, each, 0.0).sum(-1) / steps.clamp(1, 3)[:, None]
    spatial = z.spatial[steps.clamp(max=4)].permute(0, 3, 1, 2)
    central = z.central[z.degree.clamp(max=4)]
    q, k = z.q + at_queries(z, central, 1)[:, None], z.k + central[:, None]
    return softmax(z.scale * q @ k.mT + spatial + along) @ z.v


@mechanism(
    "nearest_points", params={"near": 3, "hidden": 4}, x=floats("B, NK, 3"), w1=floats("hidden, 3"),
    w2=floats("H, hidden"),
)  # fmt: skip
def nearest_points(z: Given) -> Tensor:
    apart = at_queries(z, z.x, 1)[:, :, None] - z.x[:, None]
    close = largest(-(apart**2).sum(-1).detach(), 3)[:, None]
    bias = torch.einsum("bqkj,hj->bhqk", (apart @ z.w1.T).relu(), z.w2)
    return softmax(dot(z) + bias, close) @ z.v


@mechanism(
    "point_transformer", sizes="DV=4", params={"radius": 1.9}, x=floats("B, NK, 3"), theta=floats("3, D"),
    gamma=floats("H, D, D"),
)  # fmt: skip
def point_transformer(z: Given) -> Tensor:
    apart = at_queries(z, z.x, 1)[:, :, None] - z.x[:, None]
    offset = (apart @ z.theta)[:, None]
    inner = (z.q[:, :, :, None] - z.k[:, :, None] + offset).relu()
    logits = torch.einsum("bhqkd,hde->bhqke", inner, z.gamma)
    near = ((apart**2).sum(-1) <= 1.9**2)[:, None, :, :, None]
    w = softmax(logits, near, dim=3)
    return (w * (z.v[:, :, None] + offset)).sum(3)


@mechanism(
    "heterogeneous", params={"kinds": 2}, kind=ints(2, "B, NK"), wa=floats("H, kinds, kinds, D, D"),
    wm=floats("H, kinds, DV, DV"), prior=floats("H, kinds, kinds"),
)  # fmt: skip
def heterogeneous(z: Given) -> Tensor:
    one, two = torch.nn.functional.one_hot(at_queries(z, z.kind), 2), torch.nn.functional.one_hot(z.kind, 2)
    one, two = one.double(), two.double()
    s = torch.einsum("bhqd,bqt,htude,bku,bhke->bhqk", z.q, one, z.wa, two, z.k)
    prior = torch.einsum("bqt,htu,bku->bhqk", one, z.prior, two)
    v = torch.einsum("bhke,bku,huef->bhkf", z.v, two, z.wm)
    return softmax(z.scale * s * prior) @ v
