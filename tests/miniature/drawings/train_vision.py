"""Training of CLIP's vision encoder against the directions of things and grounds, text locked.

Pictures stand on random colours in every second case, so that things are not bound to grounds.
A class head for the artist and a head on every patch help it to see; they are dropped afterwards.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPModel, CLIPVisionModelWithProjection

from . import patches
from .joint_space import JointSpace, build
from .preprocess import preprocess
from .sources import ARTISTS
from .training import Run, Schedule
from .world import (
    SIDE,
    THINGS,
    TRAINED,
    Scenes,
    generator_of,
    pairs,
    recolour,
    render,
    sample,
)

BATCH, KEPT_PATCHES = 64, 40
SCHEDULE = Schedule(steps=6000, rate=1.5e-3)
POOL, REFRESH = 4096, 320  # pictures rendered at once, steps they serve
OTHER_GROUNDS = 0.5
SCALE = 15.0  # of the cosines in the cross entropy
ARTIST_WEIGHT, PATCH_WEIGHT, APART_WEIGHT = 0.3, 0.5, 0.5
PLACE_SIZE = 0.3  # amplitude of the initial position code, near that of the patches
CHUNK = 50
Tower = CLIPModel | CLIPVisionModelWithProjection  # a vision encoder with its projection


class WithHeads(nn.Module):
    """CLIP with a head for the artist, and one on every patch for thing and way to the centre."""

    def __init__(self, clip: Tower) -> None:
        super().__init__()
        width = clip.vision_model.config.hidden_size
        self.clip = clip
        self.artist = nn.Linear(width, len(ARTISTS))
        self.patch = nn.Linear(width, len(THINGS) + 2)


@torch.no_grad()
def start(clip: Tower) -> None:
    """Begin with a sine code of row and column as the patches' position embedding."""
    places = clip.vision_model.embeddings.position_embedding.weight
    side, width = math.isqrt(len(places) - 1), places.shape[1]
    rates = 1 / 100 ** (torch.arange(width // 4) / (width // 4))
    phase = torch.arange(side)[:, None] * rates  # (side, width / 4)
    code = torch.cat([phase.sin(), phase.cos()], dim=-1)
    rows = code[:, None].expand(side, side, -1)
    columns = code[None].expand(side, side, -1)
    places[1:] = PLACE_SIZE * torch.cat([rows, columns], dim=-1).flatten(0, 1)


def transform(clip: Tower, hidden: Tensor) -> Tensor:
    """Embedded tokens (N, L, D) -> output of the last layer, before the last norm."""
    hidden = clip.vision_model.pre_layrnorm(hidden)
    for layer in clip.vision_model.encoder.layers:
        hidden = layer(hidden, attention_mask=None)
    return hidden


def sparse_tokens(clip: Tower, source: Tensor, kept: Tensor) -> Tensor:
    """Class token and the patches `kept` (N, k) of windows (N, 256, 300), (N, 1 + k, D)."""
    embeddings = clip.vision_model.embeddings
    chosen = source.gather(1, kept[:, :, None].expand(-1, -1, source.shape[-1]))
    hidden = patches.embed(chosen, embeddings.patch_embedding.weight)
    places = embeddings.position_embedding.weight
    first = (embeddings.class_embedding + places[0]).expand(len(source), 1, -1)
    return torch.cat([first, hidden + places[1 + kept]], dim=1)


@torch.no_grad()
def class_states(clip: Tower, pictures: Tensor) -> Tensor:
    """Class token after the last norm (N, D) of [0, 1] pictures (N, 3, H, W)."""
    states = []
    for part in pictures.split(CHUNK):
        hidden = transform(clip, clip.vision_model.embeddings(preprocess(part)))
        states.append(clip.vision_model.post_layernorm(hidden[:, 0]))
    return torch.cat(states)


@torch.no_grad()
def image_embeds(clip: Tower, pictures: Tensor) -> Tensor:
    """Joint-space embeddings (N, J), not normalised, of [0, 1] pictures (N, 3, H, W)."""
    return clip.visual_projection(class_states(clip, pictures))


def train(seed: int, clip: CLIPModel) -> CLIPModel:
    """Train the vision half of `clip`, whose text half stays."""
    torch.manual_seed(seed)
    model, space = WithHeads(clip), build()
    start(clip)
    for name, value in model.named_parameters():
        value.requires_grad_(not name.startswith(("clip.text", "clip.logit_scale")))
    run = Run("vision", model, SCHEDULE, seed, weight_decay=0.05, average=0.995)
    fit(run, model, space, seed)
    return clip


def fit(run: Run, model: WithHeads, space: JointSpace, seed: int) -> None:
    """All steps of the run, on pictures drawn anew every so many of them."""
    turn = -1
    while not run.done:
        if run.step // REFRESH != turn:
            turn = run.step // REFRESH
            fresh = generator_of(seed + 200, turn)
            scenes = recolour(sample(POOL, "train", fresh), OTHER_GROUNDS, fresh)
            pictures = (render(scenes) * 255).round().byte()
        _step(run, model, space, scenes, pictures)
    run.adopt_mean()


def _step(run: Run, model: WithHeads, space: JointSpace, pool: Scenes, pictures: Tensor) -> None:
    generator = run.generator()
    pick = torch.randint(POOL, (BATCH,), generator=generator)
    scenes, batch = pool[pick], pictures[pick].float() / 255
    noise = torch.randn(BATCH, 1, 1, 1, generator=generator)
    batch = (batch * (1 + 0.05 * noise)).clamp(0, 1)
    source = patches.windows(batch)
    kept = draw_kept(source, generator)
    hidden = transform(model.clip, sparse_tokens(model.clip, source, kept))
    state = model.clip.vision_model.post_layernorm(hidden[:, 0])
    joint = F.normalize(model.clip.visual_projection(state), dim=-1)
    plain = scenes.ground >= 0
    thing_logits = SCALE * joint @ space.things[:-1].T
    thing = F.cross_entropy(thing_logits, scenes.thing)
    ground_logits = SCALE * joint[plain] @ space.grounds[:-1].T
    ground = F.cross_entropy(ground_logits, scenes.ground[plain])
    wanted = space.targets(scenes.thing[plain], scenes.ground[plain])
    apart = 1 - (joint[plain] * wanted).sum(dim=-1).mean()
    artist = F.cross_entropy(model.artist(state), scenes.artist)
    patch = patch_loss(model, hidden[:, 1:], scenes, kept)
    loss = thing + ground + APART_WEIGHT * apart + ARTIST_WEIGHT * artist + PATCH_WEIGHT * patch
    right = (thing_logits.argmax(dim=-1) == scenes.thing).float().mean()
    run.descend(
        loss, thing=thing.item(), ground=ground.item(), apart=apart.item(), artist=artist.item(),
        patch=patch.item(), right=right.item(),
    )  # fmt: skip


def draw_kept(source: Tensor, generator: torch.Generator) -> Tensor:
    """Patches to keep (N, k): at random, in three pictures of four those with edges first."""
    flat = source.unflatten(-1, (3, -1))
    edge = (flat - flat.mean(dim=-1, keepdim=True)).abs().amax(dim=(-1, -2)) > 0.3
    score = torch.rand(edge.shape, generator=generator)
    score += edge * (torch.arange(len(edge)) % 4 > 0)[:, None]
    return score.topk(KEPT_PATCHES, dim=-1).indices


def patch_loss(model: WithHeads, tokens: Tensor, scenes: Scenes, kept: Tensor) -> Tensor:
    """How well each kept patch's token knows the thing and the way to its centre."""
    across = SIDE // patches.STRIDE
    centre = (torch.stack([kept % across, kept // across], dim=-1) + 0.5) / across
    way = (torch.stack([scenes.x, scenes.y], dim=-1)[:, None] - centre) / 0.3
    output = model.patch(F.layer_norm(tokens, tokens.shape[-1:]))
    thing, found = output.split([len(THINGS), 2], dim=-1)
    wanted = scenes.thing[:, None].expand(kept.shape).flatten()
    return F.cross_entropy(thing.flatten(0, 1), wanted) + F.mse_loss(found, way)


def nearest_pairs(joint: Tensor, bank: Tensor) -> Tensor:
    """The pair (N, 2) among all 192 whose unit vector in `bank` (192, 96) is nearest."""
    return pairs("all")[(F.normalize(joint, dim=-1) @ bank.T).argmax(dim=-1)]


def domains() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Parts of the world on which CLIP is measured: part and artists."""
    held_out = {a.name: ("all", (i,)) for i, a in enumerate(ARTISTS) if not a.trained}
    return {"train": ("train", TRAINED), "test": ("test", TRAINED)} | held_out


@torch.no_grad()
def measure(clip: Tower, bank: Tensor, count: int = 256) -> dict[str, float]:
    """Share of pictures nearest to the right thing, ground and both among 192 captions."""
    facts = {}
    for name, (part, artists) in domains().items():
        scenes = sample(count, part, generator_of(78), artists)
        found = nearest_pairs(image_embeds(clip, render(scenes)), bank)
        right = torch.stack([found[:, 0] == scenes.thing, found[:, 1] == scenes.ground], dim=-1)
        facts[f"{name}_thing"] = float(right[:, 0].float().mean())
        facts[f"{name}_ground"] = float(right[:, 1].float().mean())
        facts[f"{name}_both"] = float(right.all(dim=-1).float().mean())
    return facts
