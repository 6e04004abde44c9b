"""Whose checkpoints can be converted, and how they are told apart."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from s4mim_hf.errors import InputError, nearest, some
from s4mim_hf.modeling import S4MIMConfig

Converter = Callable[[Mapping[str, torch.Tensor]], tuple[S4MIMConfig, dict[str, torch.Tensor]]]


@dataclass(frozen=True)
class Peer:
    """One peer.

    Attributes:
        name: on the command line, and of the module beside this one that converts it.
        title: in prose.
        authors: whose work the weights are.
        repository: where code and weights are from.
        paper: the address of the paper.
        licence: of the repository, by its identifier on the Hub.
        mark: a weight's name that no other peer's network has beside `without`.
        without: a weight's name that its network lacks; None: `mark` says enough.
        choices: fields of `S4MIMConfig` that no weight tells, and that a person may set.
        cityscapes_otherwise: those of `choices` that configurations of Cityscapes in other versions of its repository
            have other values of than are taken, with these values.
    """

    name: str
    title: str
    authors: str
    repository: str
    paper: str
    licence: str
    mark: str
    without: str | None = None
    choices: tuple[str, ...] = ()
    cityscapes_otherwise: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def made(self, keys: Collection[str]) -> bool:
        """Say whether weights of these names are this peer's."""
        return self.mark in keys and self.without not in keys

    @property
    def convert(self) -> Converter:
        """The converter; its module is imported only now."""
        converter: Converter = importlib.import_module(f"{__package__}.{self.name}").convert
        return converter

    @property
    def left_out(self) -> tuple[str, ...]:
        """Prefixes of the weights that have no place in our network."""
        return tuple(getattr(importlib.import_module(f"{__package__}.{self.name}"), "LEFT_OUT", ()))


_OF_A_DEEPLAB = ("output_stride", "aspp_rates", "multi_grid")
# What both repositories' ResNets make of a configuration that asks for a multi-grid.
_GRID = (2, 2, 4)

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            name="unimatch",
            title="UniMatch",
            authors="Yang, Qi, Feng, Zhang, Shi",
            repository="https://github.com/LiheYoung/UniMatch",
            paper="https://arxiv.org/abs/2208.09910",
            licence="mit",
            mark="head.b0.0.weight",
            without="corr.conv1.weight",
            choices=_OF_A_DEEPLAB,
            # Commit 7292bac.
            cityscapes_otherwise={"output_stride": 8, "aspp_rates": (12, 24, 36), "multi_grid": _GRID},
        ),
        Peer(
            name="unimatch_v2",
            title="UniMatch V2",
            authors="Yang, Zhao, Zhao",
            repository="https://github.com/LiheYoung/UniMatch-V2",
            paper="https://arxiv.org/abs/2410.10777",
            licence="mit",
            mark="head.scratch.layer1_rn.weight",
        ),
        Peer(
            name="corrmatch",
            title="CorrMatch",
            authors="Sun, Yang, Zhang, Cheng, Hou",
            repository="https://github.com/BBBBchan/CorrMatch",
            paper="https://arxiv.org/abs/2306.04300",
            licence="cc-by-nc-4.0",
            mark="corr.conv1.weight",
            choices=_OF_A_DEEPLAB,
            # Before commit ca5c877.
            cityscapes_otherwise={"multi_grid": _GRID},
        ),
    )
}


def peer_named(name: str) -> Peer:
    """Return the peer of a name.

    Raises:
        InputError: there is none.
    """
    if name not in PEERS:
        raise InputError(f"there is no converter for {name!r}{nearest(name, PEERS)}; the peers are {', '.join(PEERS)}")
    return PEERS[name]


def check_peer(peer: Peer, keys: Collection[str]) -> None:
    """Refuse weights that are another peer's, or no peer's.

    Raises:
        InputError: saying whose they are.
    """
    if peer.made(keys):
        return
    for other in PEERS.values():
        if other.made(keys):
            raise InputError(f"these are weights of {other.title}, not of {peer.title}; convert them as {other.name}")
    raise InputError(
        f"these are weights of none of the peers that can be converted ({', '.join(PEERS)}), but of a network that "
        f"begins with {some(keys)}"
    )
