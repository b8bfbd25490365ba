"""What the miniature of SDXL is trained on: tokens, conditions, sizes, and its start."""

from __future__ import annotations

import pytest
import torch

from ..drawings import models as drawings
from ..drawings.captions import TEMPLATES
from ..drawings.tokenizer import END, Tokenizer, end_positions
from . import conditions, head_start, models
from .conditions import Captions, draw_prompts, draw_sizes, end_alone, plain_sizes
from .encoders import Prompts, TextEncoders, zeros
from .train_open_clip import joint_space, measure
from .train_unet import predict

N = 2000


def random_prompts(count: int, seed: int = 0) -> Prompts:
    g = torch.Generator().manual_seed(seed)
    context = torch.randn(count, 77, models.CONTEXT_WIDTH, generator=g)
    return Prompts(context, torch.randn(count, models.G_WIDTH, generator=g))


@pytest.fixture(scope="module")
def captions() -> Captions:
    """Random states of 3 pairs' captions, with end tokens in slots 2 to 7."""
    prompts = random_prompts(3 * len(TEMPLATES))
    shape = (3, len(TEMPLATES))
    return Captions(
        prompts.context.half().unflatten(0, shape), prompts.pooled.unflatten(0, shape),
        torch.arange(3 * len(TEMPLATES)).remainder(6).add(2).reshape(shape), random_prompts(1, 5),
    )  # fmt: skip


@pytest.fixture(scope="module")
def drawn(captions) -> Prompts:
    rows = torch.arange(N) % 3
    return draw_prompts(captions, rows, torch.Generator().manual_seed(1))


def test_only_what_is_behind_the_first_end_token_becomes_padding():
    ids = Tokenizer()(["a fox on a red background", ""])
    changed = models.padded_with_zero(ids)
    ends = end_positions(ids)
    assert changed[torch.arange(2), ends].tolist() == [END, END]
    assert (changed == models.PAD).sum(dim=-1).tolist() == [76 - 7, 76 - 1]
    assert torch.equal(changed[0, :8], ids[0, :8])
    assert [models.OPEN_IDS[i] for i in models.compact(changed)[0].tolist()] == changed[0].tolist()


def kinds_of(drawn: Prompts, captions: Captions) -> dict[str, torch.Tensor]:
    """What each drawn prompt is, judged by L's states where they were not dropped."""
    states = drawn.context[..., : models.L_WIDTH]
    empty = captions.empty.context[..., : models.L_WIDTH]
    same = (states == empty).all(dim=-1)  # (N, 77)
    zero = (states == 0).all(dim=-1).all(dim=-1)
    return {
        "zero": zero,
        "empty": same.all(dim=-1),
        "end alone": same.sum(dim=-1) == 76,
        "caption": ~zero & ~same.any(dim=-1),
    }


def test_the_conditions_are_captions_end_states_alone_and_nothing(drawn, captions):
    kinds = kinds_of(drawn, captions)
    assert torch.stack(list(kinds.values())).sum(dim=0).eq(1).all()  # exactly one of them
    shares = {name: float(which.float().mean()) for name, which in kinds.items()}
    kept = 1 - conditions.DROPPED_SHARE
    nothing = conditions.NOTHING_SHARE * conditions.ZEROS_OF_NOTHING
    empty = nothing + conditions.POOLED_SHARE
    assert shares["end alone"] == pytest.approx(conditions.END_SHARE * kept, abs=0.04)
    assert shares["empty"] == pytest.approx(empty * kept, abs=0.03)
    assert shares["zero"] == pytest.approx(nothing + conditions.DROPPED_SHARE, abs=0.03)


def test_a_share_of_the_empty_prompts_has_a_captions_pooled_state(drawn, captions):
    empty = kinds_of(drawn, captions)["empty"]
    own = (drawn.pooled[:, None] == captions.pooled.flatten(0, 1)).all(dim=-1).any(dim=-1)
    kept = 1 - conditions.DROPPED_SHARE
    share = float((empty & own).float().mean())
    assert share == pytest.approx(conditions.POOLED_SHARE * kept**2, abs=0.03)


def test_an_end_state_stands_alone_in_slot_1_and_is_a_captions(drawn, captions):
    alone = kinds_of(drawn, captions)["end alone"].nonzero()[:, 0]
    known = captions.context.float()[..., : models.L_WIDTH].flatten(0, 1)
    ends = known[torch.arange(len(known)), captions.ends.flatten()]
    found = drawn.context[alone, 1, : models.L_WIDTH]
    assert (found[:, None] == ends).all(dim=-1).any(dim=-1).all()


def test_no_drawn_prompt_has_one_state_in_all_slots(drawn):
    behind = drawn.context[:, 1:]
    repeated = (behind == behind[:, :1]).all(dim=-1).all(dim=-1)
    assert not (repeated & behind.flatten(1).any(dim=-1)).any()  # all zeros are nothing


def test_parts_are_dropped_one_by_one(drawn):
    split = [models.L_WIDTH, models.G_WIDTH]
    parts = [*(p.flatten(1) for p in drawn.context.split(split, dim=-1)), drawn.pooled]
    gone = torch.stack([~part.any(dim=-1) for part in parts])
    assert [bool((gone[i] & (gone.sum(dim=0) == 1)).any()) for i in range(3)] == [True] * 3
    assert bool(gone.all(dim=0).any())


def test_sizes_are_the_pictures_own_in_most_cases_and_within_bounds():
    sizes = draw_sizes(N, torch.Generator().manual_seed(2))
    plain = (sizes == plain_sizes(N)).all(dim=-1)
    share = conditions.PLAIN_SIZES_SHARE
    assert float(plain.float().mean()) == pytest.approx(share, abs=0.03)
    others = sizes[~plain]
    assert others[:, [0, 1, 4, 5]].amin() >= conditions.LEAST_SIZE
    assert others[:, [0, 1, 4, 5]].amax() <= conditions.LARGEST_SIZE
    assert float((others[:, 2] == 0).float().mean()) == pytest.approx(0.5, abs=0.12)


def test_zeros_are_one_prompt_of_zeros():
    assert not zeros().context.any() and not zeros().pooled.any()
    assert zeros().context.shape == (1, 77, 160)


def test_the_end_alone_leaves_the_empty_prompts_other_slots(captions):
    context = end_alone(captions.empty, torch.ones(2, models.CONTEXT_WIDTH))
    assert (context[:, 1] == 1).all()
    for part in (slice(0, 1), slice(2, 77)):
        assert torch.equal(context[:, part], captions.empty.context[:, part].expand(2, -1, -1))


def test_the_open_clips_directions_are_orthogonal():
    space = joint_space()
    named = torch.cat([space.things, space.grounds, space.wordings])
    assert torch.allclose(named @ named.T, torch.eye(len(named)), atol=1e-5)


@pytest.mark.slow
def test_the_open_clip_knows_every_pair_by_its_captions():
    facts = measure(models.load("open_clip"))
    assert min(facts.values()) > 0.99, facts


@pytest.mark.slow
def test_at_its_start_the_unet_reads_the_first_encoder_alone():
    torch.manual_seed(0)
    model = models.unet_model()
    encoders = TextEncoders.load()
    head_start.adopt(model, drawings.load("unet"), encoders.l)
    first = model.add_embedding.linear_1.weight
    assert not first[:, models.G_WIDTH :].any()  # the sizes
    pooled = encoders.encode(["a fox on a red background", "a car"])[0].pooled
    read = pooled @ first[:, : models.G_WIDTH].T
    assert 0.5 < float(read.std()) < 2
    prompts, _ = encoders.encode(["a fox on a red background"])
    noisy, times = torch.randn(1, 4, 12, 12), torch.tensor([500])
    other = Prompts(prompts.context.clone(), prompts.pooled + 1)
    other.context[..., models.L_WIDTH :] += 1
    with torch.no_grad():
        a = predict(model, noisy, times, prompts, plain_sizes(1))
        b = predict(model, noisy, times, other, 7 * plain_sizes(1))
        c = predict(model, noisy, times, encoders.encode([""])[0], plain_sizes(1))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c, atol=1e-3)
