"""The peers' released checkpoints as model folders of ours, which every script and transformers' Auto classes load."""

from __future__ import annotations

from s4mim_hf.hub.conversion.converting import Converted, convert_checkpoint
from s4mim_hf.hub.conversion.peers import PEERS, Peer

__all__ = ["PEERS", "Converted", "Peer", "convert_checkpoint"]
