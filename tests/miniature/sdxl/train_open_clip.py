"""Training of the open CLIP's text encoder: captions to the directions of what they name.

The directions are orthogonal, as those of the drawings' joint space, but in a space of its own.
Only the end token is read: what the padding tokens behind it hold is left to the causal
attention, as in OpenCLIP, whose training never reads them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection

from ..drawings.captions import FULL, TEMPLATES, write
from ..drawings.joint_space import JointSpace, rotation
from ..drawings.sources import BUILD
from ..drawings.tokenizer import Tokenizer, end_positions
from ..drawings.train_text import BATCH, classify, draw
from ..drawings.training import Run, Schedule
from ..drawings.world import COLOURS, THINGS, pairs
from . import models

RUNS = BUILD / "sdxl"
SCHEDULE = Schedule(steps=1500, rate=1.5e-3)
SEED = 43


def joint_space(seed: int = SEED) -> JointSpace:
    """The open CLIP's joint space: named directions alone; its projection is trained."""
    generator = torch.Generator().manual_seed(seed)
    basis = rotation(torch.randn(models.G_WIDTH, models.G_WIDTH, generator=generator).double())
    counts = (len(THINGS) + 1, len(COLOURS) + 1, len(TEMPLATES))
    directions = basis.T.float().split([*counts, models.G_WIDTH - sum(counts)])
    eye = torch.eye(models.G_WIDTH)
    return JointSpace(eye, torch.ones(models.G_WIDTH), eye, *directions)


def end_states(encoder: CLIPTextModelWithProjection, ids: Tensor) -> Tensor:
    """Normalised state of the first end token (N, 64), from CLIP ids (N, 77)."""
    ends = end_positions(ids)
    short = models.compact(models.padded_with_zero(ids)[:, : int(ends.max()) + 1])
    states = encoder.text_model(input_ids=short).last_hidden_state
    return states[torch.arange(len(ids)), ends]


def pooled(encoder: CLIPTextModelWithProjection, ids: Tensor) -> Tensor:
    """Joint-space embeddings (N, 64), not normalised: SDXL's pooled text."""
    return encoder.text_projection(end_states(encoder, ids))


def train(seed: int) -> CLIPTextModelWithProjection:
    """A trained open CLIP."""
    torch.manual_seed(seed)  # the initial weights: transformers offers no generator for them
    encoder, space, tokenizer = models.open_clip_model(), joint_space(), Tokenizer()
    run = Run("open_clip", encoder, SCHEDULE, seed, weight_decay=0.02, average=0.99, folder=RUNS)
    while not run.done:
        captions, facts = draw(BATCH, run.generator())
        joint = F.normalize(pooled(encoder, tokenizer(captions)), dim=-1)
        named = classify(joint, space, facts[:, 0], facts[:, 1])
        apart = 1 - (joint * space.targets(*facts.T)).sum(dim=-1).mean()
        run.descend(named + apart, named=named.item(), apart=apart.item())
    run.adopt_mean()
    return encoder


@torch.no_grad()
def measure(encoder: nn.Module) -> dict[str, float]:
    """Share of captions nearest to their own pair among all 192, of known and held-out pairs."""
    space, tokenizer, facts = joint_space(), Tokenizer(), {}
    everything = pairs("all")
    table = space.targets(everything[:, 0], everything[:, 1])
    for part in ("train", "test"):
        right = []
        for pair in pairs(part):
            ids = tokenizer([write(template, *pair.tolist()) for template in FULL])
            joint = F.normalize(pooled(encoder, ids), dim=-1)
            best = everything[(joint @ table.T).argmax(dim=-1)]
            right.append((best == pair).all(dim=-1).float().mean())
        facts[f"text_{part}"] = float(torch.stack(right).mean())
    return facts
