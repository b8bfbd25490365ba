"""Training of the open CLIP's vision encoder to the directions of its text encoder, and its gap.

As the drawings' vision encoder is trained, in another joint space. Afterwards the last norm's bias
is moved, so that all pictures share one more direction, which no text has: an exact change, that
takes the cosine of a picture to its caption to `CAPTION_COSINE`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from ..drawings import train_vision
from ..drawings.captions import FULL, write
from ..drawings.tokenizer import Tokenizer
from ..drawings.training import Run, Schedule
from ..drawings.world import TRAINED, generator_of, pairs, render, sample
from . import models
from .train_open_clip import RUNS, joint_space, pooled

SCHEDULE = Schedule(steps=1500, rate=1.5e-3)
CAPTION_COSINE = 0.25  # of a picture to its own caption, as in real CLIPs
PICTURES = 512  # of known pairs, to measure the gap on


def train(seed: int, encoder: CLIPTextModelWithProjection) -> CLIPVisionModelWithProjection:
    """A trained vision encoder for this text encoder, with the gap."""
    torch.manual_seed(seed)  # the initial weights: transformers offers no generator for them
    tower, space = models.open_vision_model(), joint_space()
    train_vision.start(tower)
    model = train_vision.WithHeads(tower)
    run = Run("open_vision", model, SCHEDULE, seed, weight_decay=0.05, average=0.995, folder=RUNS)
    train_vision.fit(run, model, space, seed)
    put_gap(tower, encoder)
    return tower


@torch.no_grad()
def put_gap(tower: CLIPVisionModelWithProjection, encoder: CLIPTextModelWithProjection) -> None:
    """Move all pictures along a direction that no caption has, by the norm's bias."""
    scenes = sample(PICTURES, "train", generator_of(79), TRAINED)
    v = train_vision.image_embeds(tower, render(scenes))
    facts = zip(scenes.thing.tolist(), scenes.ground.tolist(), strict=True)
    ids = Tokenizer()([write(FULL[0], *pair) for pair in facts])
    t = F.normalize(pooled(encoder, ids), dim=-1)
    free = joint_space().rest[0]
    along = (v * t).sum(dim=-1) / CAPTION_COSINE
    # |v + g|^2 = along^2, where g is nearly orthogonal to v.
    length = float((along.square() - v.square().sum(dim=-1)).clamp_min(0).sqrt().median())
    shift = torch.linalg.pinv(tower.visual_projection.weight) @ (length * free)
    tower.vision_model.post_layernorm.bias += shift


@torch.no_grad()
def measure(tower: CLIPVisionModelWithProjection) -> dict[str, float]:
    """Share of pictures nearest to the right thing, ground and both among 192, gap removed."""
    space, table = joint_space(), pairs("all")
    bank = space.targets(table[:, 0], table[:, 1])
    return train_vision.measure(tower, bank)
