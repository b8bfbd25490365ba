"""The modality gap of ViT-L/14 as an exact change of trained weights.

Real CLIP's EOS states share a long mean, its start state is longer than they are, pictures share a
mean that lies mostly in directions which W_t hardly passes, and pictures and captions are far
apart. Training on a small world gives none of this. Each is put in by a change that is exact:

1. The final LayerNorm's bias of the text encoder moves all states by one vector: the mean EOS
   state over captions becomes the wanted one. Deviations from it stay as they are.
2. Its weight and bias are scaled together: EOS states get the length they have in SD 1.5.
3. Its weight and bias on two channels, which W_t hardly reads, are scaled: the start state, which
   lies on them, gets its length.
4. Pictures: c = g * n + b after the last LayerNorm, where the entries of n sum to zero. With
   a = unit(1 / g), a . (g * n) = 0, so a . c = a . b for every picture. W_v + (s o - W_v a) a^T
   with s (a . b) = |offset| adds one constant vector along o to every embedding, and o becomes a
   left singular direction of W_v with the value s. In ViT-L/14 the first of these has cosine .85
   to the mean picture.

Scaled by sqrt(1 / 8) lengths are those of SD 1.5's text encoder, since widening repeats each
channel eight times. Text states change, so the U-Net is trained after this.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from .captions import FULL, write
from .joint_space import KEPT, START_CHANNELS, JointSpace
from .tokenizer import Tokenizer
from .train_text import end_states, text_states
from .train_vision import class_states
from .world import generator_of, pairs, render, sample

EOS_LENGTH, START_LENGTH = 28.3 / 8**0.5, 43.8 / 8**0.5
MEAN_SHARE = 0.68  # length of the mean EOS state over that of EOS states
MEAN_TOP, MEAN_CUT = 0.25, 0.19  # energy of the mean EOS state on v_1 and on the cut directions
PICTURE_CUT, MEAN_PICTURE_CUT = 0.36, 0.62  # energy of pictures, and of their mean, that is cut
LOW_DIRECTIONS = slice(76, 84)  # of W_t's left ones: here the cut part of the mean picture lies
COSINE = 0.24  # of a training picture to its caption; held-out ones have .03 less
TOP_RATIO = 2.56  # W_v's first singular value over its median, as in ViT-L/14
FIRST = 1.1  # and over the largest that training left, where that one is larger
ROUNDS = 4


def caption_states(clip: CLIPModel, part: str = "all") -> Tensor:
    """EOS states (pairs * templates, 96) of all full captions, pair by pair."""
    captions = [write(text, *pair) for pair in pairs(part).tolist() for text in FULL]
    ids = Tokenizer()(captions)
    return torch.cat([end_states(clip, some) for some in ids.split(256)])


def start_state(clip: CLIPModel) -> Tensor:
    """The state of the start token (96,), the same for every prompt."""
    return text_states(clip, Tokenizer()([""])[:, :2])[0, 0]


@torch.no_grad()
def set_text(clip: CLIPModel, space: JointSpace) -> None:
    """Give the text encoder the wanted mean and lengths (1, 2, 3), in place."""
    norm = clip.text_model.final_layer_norm
    channels = list(START_CHANNELS)
    for _ in range(ROUNDS):
        states = caption_states(clip)
        mean = states.mean(dim=0)
        spread = (states - mean).square().sum(dim=-1).mean().sqrt()
        length = spread * MEAN_SHARE / (1 - MEAN_SHARE**2) ** 0.5
        norm.bias += length * mean_direction(mean, space) - mean
        scale = EOS_LENGTH / caption_states(clip).norm(dim=-1).mean()
        norm.weight *= scale
        norm.bias *= scale
        start = start_state(clip)
        others = start.square().sum() - start[channels].square().sum()
        wanted = ((START_LENGTH**2 - others) / start[channels].square().sum()).sqrt()
        norm.weight[channels] *= wanted
        norm.bias[channels] *= wanted


def mean_direction(mean: Tensor, space: JointSpace) -> Tensor:
    """Unit direction wanted for the mean EOS state: v_1, cut directions, and one kept direction.

    In the cut directions it keeps the direction that training gave it. The kept one projects to
    a direction of the joint space that names nothing.
    """
    cut = space.V[:, KEPT:] @ (space.V[:, KEPT:].T @ mean)
    inverse = space.V[:, :KEPT] / space.s[:KEPT] @ space.U[:, :KEPT].T
    kept = F.normalize(inverse @ space.rest[0], dim=0)
    shares = torch.tensor([MEAN_TOP, MEAN_CUT, 1 - MEAN_TOP - MEAN_CUT]).sqrt()
    return shares @ torch.stack([-space.V[:, 0], F.normalize(cut, dim=0), kept])


@torch.no_grad()
def set_pictures(clip: CLIPModel, space: JointSpace, count: int = 400) -> None:
    """Give the vision encoder the wanted constant part (4), in place."""
    scenes = sample(count, "train", generator_of(41))
    states = class_states(clip, render(scenes))
    weight = clip.visual_projection.weight
    embeds = states @ weight.T
    mean = embeds.mean(dim=0)
    texts = F.normalize(pair_states(clip) @ space.projection.T, dim=-1)
    own = texts[8 * scenes.thing + scenes.ground]
    wanted = mean_picture(embeds - mean, own, space)
    add_constant(clip, wanted - mean)


def pair_states(clip: CLIPModel) -> Tensor:
    """EOS state (192, 96) of the first caption of every pair."""
    captions = [write(FULL[0], *pair) for pair in pairs("all").tolist()]
    return end_states(clip, Tokenizer()(captions))


def mean_picture(deviations: Tensor, own: Tensor, space: JointSpace) -> Tensor:
    """The mean picture embedding (96,) for which the shares and the cosine are as wanted.

    deviations (N, 96) of embeddings from their mean, own (N, 96) their captions' unit embeddings.
    The part on u_1 is found by bisection, for the rest there are formulas.
    """
    cut = deviations @ space.U[:, KEPT:]
    energy = deviations.square().sum(dim=-1).mean()
    stray = cut.square().sum(dim=-1).mean() / energy
    share = (PICTURE_CUT - stray) / (MEAN_PICTURE_CUT - stray)  # of the mean in pictures' energy
    length = (energy * share / (1 - share)).sqrt()
    low = F.normalize(space.U[:, LOW_DIRECTIONS].sum(dim=-1), dim=0)
    left, right = -1.0, 1.0
    for _ in range(40):
        top = (left + right) / 2
        mean = length * _mix(top, low, space)
        cosine = F.cosine_similarity(deviations + mean, own, dim=-1).mean()
        left, right = (top, right) if cosine > COSINE else (left, top)
    return mean


def _mix(top: float, low: Tensor, space: JointSpace) -> Tensor:
    """Unit vector with `top` of the kept part's length on u_1 and the rest on a spare direction."""
    kept = top * space.U[:, 0] + (1 - top**2) ** 0.5 * space.rest[1]
    return MEAN_PICTURE_CUT**0.5 * low + (1 - MEAN_PICTURE_CUT) ** 0.5 * kept


def add_constant(clip: CLIPModel, offset: Tensor) -> None:
    """Add `offset` (96,) to every picture's embedding, as a rank-one part of W_v."""
    norm, projection = clip.vision_model.post_layernorm, clip.visual_projection
    a, weight = F.normalize(1 / norm.weight, dim=0), projection.weight
    wanted = offset + weight @ a * (a @ norm.bias)  # what the next line takes out, too
    weight -= torch.outer(weight @ a, a)
    values = torch.linalg.svdvals(weight)
    top = torch.maximum(TOP_RATIO * values.median(), FIRST * values.max())
    weight += top * torch.outer(F.normalize(wanted, dim=0), a)
    norm.bias += (wanted.norm() / top - a @ norm.bias) * a
