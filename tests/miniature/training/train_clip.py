"""Contrastive training of a CLIP with hard negatives, patch dropping and an auxiliary head."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPModel

from .. import models
from ..world import patches
from ..world.captions import FULL, PARTIAL, write
from ..world.preprocess import preprocess
from ..world.scenes import (
    COLOURS,
    MAX_RADIUS,
    SHAPES,
    SIDE,
    Scenes,
    combinations,
    coverage,
    place,
    render,
)
from ..world.tokenizer import Tokenizer, end_positions
from .common import Run

ATTRIBUTES = (len(SHAPES), len(COLOURS), len(COLOURS))
SHAPE_WEIGHT, COLOUR_WEIGHT = 1.0, 0.1  # of the auxiliary head
PARTIAL_SHARE = 0.15
MAX_SCALE = 4.0  # log of the largest logit scale, about 55
PLACE_SIZE = 0.3  # amplitude of the initial position code, near that of the patches
SPREADING = patches.spread()


@dataclass(frozen=True)
class TrainingConfig:
    """How one CLIP is trained; `keep` is the share of patches kept, `side` the picture side."""

    batch: int
    steps: int
    rate: float
    keep: float
    side: int
    alone: int  # steps in which the picture tower trains on its heads, without captions
    locked: int  # step from which the text tower is kept and the picture tower follows it


RECIPES = {
    "clip": TrainingConfig(
        batch=64, steps=1600, rate=2e-3, keep=0.140625, side=224, alone=500, locked=1000
    ),
    "second": TrainingConfig(
        batch=64, steps=1000, rate=2e-3, keep=1.0, side=models.SECOND_SIDE, alone=300, locked=1000
    ),
}


class WithHeads(nn.Module):
    """A CLIP and heads that help it to see shapes and are dropped after training.

    `names` classifies the attributes from the class token; `cover` tells, from each patch's
    token after the first layer, which of its pixels belong to the figure; `whole` tells from its
    last token the figure's shape and where its centre is.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        vision = clip.config.vision_config
        self.clip = clip
        self.patches = vision.image_size // vision.patch_size  # along one side
        self.names = nn.Linear(vision.hidden_size, sum(ATTRIBUTES))
        self.cover = nn.Linear(vision.hidden_size, (SIDE // self.patches) ** 2)
        self.whole = nn.Linear(vision.hidden_size, len(SHAPES) + 2)


def image_states(clip: CLIPModel, pixels: Tensor) -> Tensor:
    """Class token after the last norm, (N, width), from preprocessed pixels."""
    return encode(clip, clip.vision_model.embeddings(pixels))[:, 0]


def sparse_tokens(clip: CLIPModel, pictures: Tensor, kept: Tensor, spreading: Tensor) -> Tensor:
    """Class token and the patches `kept` (N, k) of 64-pixel pictures, embedded, (N, 1 + k, D)."""
    embeddings = clip.vision_model.embeddings
    width = clip.config.vision_config.hidden_size
    source = patches.windows(pictures)
    source = source.gather(1, kept[:, :, None].expand(-1, -1, source.shape[-1]))
    hidden = patches.embed(source, embeddings.patch_embedding.weight, spreading)
    places = embeddings.position_embedding.weight
    first = (embeddings.class_embedding + places[0]).expand(len(pictures), 1, width)
    return torch.cat([first, hidden + places[1 + kept]], dim=1)


def encode(clip: CLIPModel, hidden: Tensor) -> Tensor:
    """Embedded tokens (N, L, D) -> final states after the last norm, (N, L, D)."""
    return clip.vision_model.post_layernorm(layers(clip, hidden)[-1])


def layers(clip: CLIPModel, hidden: Tensor) -> list[Tensor]:
    """Embedded tokens (N, L, D) -> the output of every layer."""
    outputs = [clip.vision_model.pre_layrnorm(hidden)]
    for layer in clip.vision_model.encoder.layers:
        outputs.append(layer(outputs[-1], attention_mask=None))
    return outputs[1:]


def text_states(clip: CLIPModel, ids: Tensor) -> Tensor:
    """Final states of every slot, (N, length, width), from CLIP ids (N, length)."""
    return clip.text_model(input_ids=models.compact(ids)).last_hidden_state


def end_states(clip: CLIPModel, ids: Tensor) -> Tensor:
    """State of the first end token, (N, width)."""
    ends = end_positions(ids)
    states = text_states(clip, ids[:, : int(ends.max()) + 1])  # causal: the rest cannot matter
    return states[torch.arange(len(ids)), ends]


def draw_triples(count: int, generator: torch.Generator) -> Tensor:
    """Training triples: half are families that share both colours and differ in shape."""
    known = combinations("train")
    families = []
    for _ in range(count // 24):
        _, f, g = known[torch.randint(len(known), (1,), generator=generator)][0].tolist()
        straight = (known[:, 1] == f) & (known[:, 2] == g)
        swapped = (known[:, 1] == g) & (known[:, 2] == f)
        families.append(known[straight | swapped])
    hard = torch.cat(families)[:count]
    easy = known[torch.randint(len(known), (count - len(hard),), generator=generator)]
    return torch.cat([hard, easy])


def draw_captions(triples: Tensor, generator: torch.Generator) -> tuple[list[str], Tensor]:
    """Captions and (N, 3) flags telling which of shape, figure, ground each one names."""
    captions, named = [], []
    for triple, (kind, which) in zip(
        triples, torch.rand(len(triples), 2, generator=generator).tolist(), strict=True
    ):
        templates = PARTIAL if kind < PARTIAL_SHARE else FULL
        template = templates[int(which * len(templates))]
        captions.append(write(template, triple))
        named.append([slot in template for slot in ("{s}", "{f}", "{g}")])
    return captions, torch.tensor(named)


def contrastive(
    image: Tensor, text: Tensor, scale: Tensor, triples: Tensor, named: Tensor
) -> Tensor:
    """Symmetric cross entropy; captions that fit another picture too are no negatives for it."""
    logits = scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T  # (image, text)
    same = (triples[:, None] == triples[None]) | ~named[None]  # (image, text, attribute)
    fits = same.all(dim=-1) & ~torch.eye(len(triples), dtype=torch.bool)
    logits = logits.masked_fill(fits, float("-inf"))
    target = torch.arange(len(triples))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def auxiliary(logits: Tensor, triples: Tensor) -> Tensor:
    """Weighted cross entropy of the three attribute classifiers."""
    parts = logits.split(ATTRIBUTES, dim=-1)
    shape, figure, ground = (F.cross_entropy(p, triples[:, i]) for i, p in enumerate(parts))
    return SHAPE_WEIGHT * shape + COLOUR_WEIGHT * (figure + ground)


@torch.no_grad()
def start(clip: CLIPModel) -> None:
    """Begin with a sine code of row and column as the patches' position embedding."""
    places = clip.vision_model.embeddings.position_embedding.weight
    side, width = math.isqrt(len(places) - 1), places.shape[1]
    rates = 1 / 100 ** (torch.arange(width // 4) / (width // 4))
    phase = torch.arange(side)[:, None] * rates  # (side, width / 4)
    code = torch.cat([phase.sin(), phase.cos()], dim=-1)
    rows = code[:, None].expand(side, side, -1)
    columns = code[None].expand(side, side, -1)
    places[1:] = PLACE_SIZE * torch.cat([rows, columns], dim=-1).flatten(0, 1)


def train(part: str, seed: int, steps: int | None = None, initial: Path | None = None) -> CLIPModel:
    """Train "clip" or "second" to the end and return it with the averaged weights.

    initial: a safetensors file of weights to begin from in place of random ones.
    """
    recipe = RECIPES[part]
    torch.manual_seed(seed)  # the initial weights: transformers offers no generator for them
    model = WithHeads(models.BUILDERS[part]())
    start(model.clip)
    if initial:
        model.load_state_dict(load_file(initial), strict=False)
    run = Run(part, model, steps or recipe.steps, recipe.rate, seed, decay=0.05, average=0.99)
    tokenizer = Tokenizer()
    while run.step < run.steps:
        if run.step == recipe.locked:
            lock_text(run)
        _step(run, model, tokenizer, recipe)
    run.adopt_mean()
    return model.clip


@torch.no_grad()
def lock_text(run: Run) -> None:
    """From here on the text tower is what it is now: the average must not lag behind it."""
    for name, value in run.parameters.items():
        if name.startswith(("clip.text", "clip.logit_scale")):
            value.copy_(run.mean[name])


def _step(run: Run, model: WithHeads, tokenizer: Tokenizer, recipe: TrainingConfig) -> None:
    generator = run.generator()
    triples = draw_triples(recipe.batch, generator)
    scenes = place(triples, generator)
    captions, named = draw_captions(triples, generator)
    hidden, kept = _see(model, render(scenes), recipe, generator)
    outputs = layers(model.clip, hidden)
    state = model.clip.vision_model.post_layernorm(outputs[-1][:, 0])
    names = model.names(state)
    cover = cover_loss(model, outputs[0][:, 1:], coverage(scenes), kept)
    whole = whole_loss(model, outputs[-1][:, 1:], scenes, kept)
    loss = auxiliary(names, triples) + cover + whole
    guess = names[:, : len(SHAPES)].argmax(-1)
    facts = {"shape": (guess == triples[:, 0]).float().mean().item()}
    facts |= {"cover": cover.item(), "whole": whole.item()}
    if run.step >= recipe.alone:
        image = model.clip.visual_projection(state)
        with torch.set_grad_enabled(run.step < recipe.locked):
            text = model.clip.text_projection(end_states(model.clip, tokenizer(captions)))
        scale = model.clip.logit_scale.clamp(max=MAX_SCALE).exp()
        match = contrastive(image, text, scale, triples, named)
        facts |= {"match": match.item(), "scale": scale.item()}
        loss = loss + match
    run.descend(loss, **facts)


def _see(
    model: WithHeads, pictures: Tensor, recipe: TrainingConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Embedded class token and patches, and which patches (N, k) they are."""
    if recipe.keep < 1:
        kept = draw_kept(pictures, recipe.keep, generator)
        return sparse_tokens(model.clip, pictures, kept, SPREADING), kept
    pixels = preprocess(pictures, recipe.side)
    hidden = model.clip.vision_model.embeddings(pixels)
    kept = torch.arange(hidden.shape[1] - 1).expand(len(pictures), -1)
    return hidden, kept


def cover_loss(model: WithHeads, tokens: Tensor, cover: Tensor, kept: Tensor) -> Tensor:
    """How well each kept patch's token tells figure from ground, pixel by pixel."""
    size = SIDE // model.patches
    target = F.unfold(cover[:, None], size, stride=size).transpose(1, 2)  # (N, patches, pixels)
    target = target.gather(1, kept[:, :, None].expand(-1, -1, target.shape[-1]))
    tokens = F.layer_norm(tokens, tokens.shape[-1:])
    return F.binary_cross_entropy_with_logits(model.cover(tokens), target)


def whole_loss(model: WithHeads, tokens: Tensor, scenes: Scenes, kept: Tensor) -> Tensor:
    """How well each kept patch's token knows the figure's shape and the way to its centre."""
    size = SIDE // model.patches
    centre = torch.stack([kept % model.patches, kept // model.patches], dim=-1) * size + size / 2
    way = (torch.stack([scenes.x, scenes.y], dim=-1)[:, None] - centre) / MAX_RADIUS
    shape, found = model.whole(F.layer_norm(tokens, tokens.shape[-1:])).split([len(SHAPES), 2], -1)
    wanted = scenes.shape[:, None].expand(kept.shape).flatten()
    return F.cross_entropy(shape.flatten(0, 1), wanted) + F.mse_loss(found, way)


def draw_kept(pictures: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Patches to keep (N, k): at random, in three pictures of four those with edges first."""
    source = patches.windows(pictures)  # (N, 256, 192)
    flat = source.unflatten(-1, (3, -1))
    edge = (flat - flat.mean(dim=-1, keepdim=True)).abs().amax(dim=(-1, -2)) > 0.1
    score = torch.rand(edge.shape, generator=generator)
    score += edge * (torch.arange(len(edge)) % 4 > 0)[:, None]
    return score.topk(int(edge.shape[1] * share), dim=-1).indices
