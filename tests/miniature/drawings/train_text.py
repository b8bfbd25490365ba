"""Training of CLIP's text encoder alone: captions to the directions of what they name.

W_t is not trained (see joint_space.py). Every fourth batch reads a random slot behind the first
end token, so that padding means what the caption says, as it does in SD 1.5.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPModel

from . import models
from .captions import FULL, TEMPLATES, names, write
from .joint_space import START_CHANNELS, JointSpace, build
from .tokenizer import LENGTH, Tokenizer, end_positions
from .training import Run, Schedule
from .world import pairs

BATCH = 96
SCHEDULE = Schedule(steps=900, rate=1.5e-3)
PARTIAL_SHARE, EMPTY_SHARE = 0.25, 0.02
SCALE = 15.0  # of the cosines in the cross entropy
START_SHARES = (0.72, 0.62)  # of the start state's direction on its two channels
START_WEIGHT = 0.3
PADDED_EVERY = 4


def text_states(clip: CLIPModel, ids: Tensor) -> Tensor:
    """Final states of every slot, (N, length, width), from CLIP ids (N, length)."""
    return clip.text_model(input_ids=models.compact(ids)).last_hidden_state


def end_states(clip: CLIPModel, ids: Tensor) -> Tensor:
    """State of the first end token, (N, width)."""
    ends = end_positions(ids)
    states = text_states(clip, ids[:, : int(ends.max()) + 1])  # causal: the rest cannot matter
    return states[torch.arange(len(ids)), ends]


def draw(count: int, generator: torch.Generator) -> tuple[list[str], Tensor]:
    """Captions of training pairs, and thing, ground and wording (N, 3) of each, -1 for none."""
    table = pairs("train")
    rows = torch.randint(len(table), (count,), generator=generator)
    captions, facts = [], []
    chances = torch.rand(count, 2, generator=generator).tolist()
    for (thing, ground), (kind, which) in zip(table[rows].tolist(), chances, strict=True):
        if kind < EMPTY_SHARE:
            captions.append("")
            facts.append((-1, -1, -1))
            continue
        first, last = (len(FULL), len(TEMPLATES)) if kind < PARTIAL_SHARE else (0, len(FULL))
        wording = first + int(which * (last - first))
        has_thing, has_ground = names(TEMPLATES[wording])
        captions.append(write(TEMPLATES[wording], thing, ground))
        facts.append((thing if has_thing else -1, ground if has_ground else -1, wording))
    return captions, torch.tensor(facts)


def train(seed: int) -> CLIPModel:
    """CLIP with a trained text encoder; the vision encoder is as initialised."""
    torch.manual_seed(seed)  # the initial weights: transformers offers no generator for them
    clip, space = models.clip_model(), build()
    with torch.no_grad():
        clip.text_projection.weight.copy_(space.projection)
    for name, value in clip.named_parameters():
        value.requires_grad_(name.startswith("text_model"))
    run = Run("text", clip, SCHEDULE, seed, weight_decay=0.02, average=0.99)
    tokenizer = Tokenizer()
    while not run.done:
        _step(run, clip, space, tokenizer)
    run.adopt_mean()
    return clip


def _step(run: Run, clip: CLIPModel, space: JointSpace, tokenizer: Tokenizer) -> None:
    generator = run.generator()
    padded = run.step % PADDED_EVERY == 0
    captions, facts = draw(BATCH // 3 if padded else BATCH, generator)
    ids = tokenizer(captions)
    slots = end_positions(ids)
    if padded:
        u = torch.rand(len(ids), generator=generator)
        slots = slots + (u * (LENGTH - slots)).long()
    states = text_states(clip, ids[:, : int(slots.max()) + 1])
    joint = F.normalize(clip.text_projection(states[torch.arange(len(ids)), slots]), dim=-1)
    named = classify(joint, space, facts[:, 0], facts[:, 1])
    apart = 1 - (joint * space.targets(*facts.T)).sum(dim=-1).mean()
    start = start_loss(states[0, 0])
    run.descend(
        named + apart + START_WEIGHT * start, named=named.item(), apart=apart.item(),
        start=start.item(),
    )  # fmt: skip


def classify(joint: Tensor, space: JointSpace, things: Tensor, grounds: Tensor) -> Tensor:
    """Cross entropy of unit vectors (N, 96) against the directions of things and of grounds."""
    things = things.remainder(len(space.things))
    grounds = grounds.remainder(len(space.grounds))
    return F.cross_entropy(SCALE * joint @ space.things.T, things) + F.cross_entropy(
        SCALE * joint @ space.grounds.T, grounds
    )


def start_loss(state: Tensor) -> Tensor:
    """How far the direction of the start state (D,) is from its two channels."""
    wanted = torch.zeros_like(state)
    wanted[list(START_CHANNELS)] = torch.tensor(START_SHARES)
    return 1 - F.cosine_similarity(state, wanted, dim=0)


@torch.no_grad()
def measure(clip: nn.Module, space: JointSpace) -> dict[str, float]:
    """Share of captions nearest to their own pair among all 192, of known and held-out pairs."""
    tokenizer, facts = Tokenizer(), {}
    everything = pairs("all")
    table = space.targets(everything[:, 0], everything[:, 1])
    for part in ("train", "test"):
        right = []
        for pair in pairs(part):
            ids = tokenizer([write(template, *pair.tolist()) for template in FULL])
            joint = F.normalize(clip.text_projection(end_states(clip, ids)), dim=-1)
            best = everything[(joint @ table.T).argmax(dim=-1)]
            right.append((best == pair).all(dim=-1).float().mean())
        facts[f"text_{part}"] = float(torch.stack(right).mean())
    return facts
