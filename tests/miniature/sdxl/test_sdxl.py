"""The miniature of SDXL: laws of its conditions, readings, slots and widening, without a host."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ..drawings import models as drawings
from ..drawings.captions import TEMPLATES
from ..drawings.tokenizer import END, Tokenizer, end_positions
from . import conditions, head_start, heads, models, readings, slots
from .conditions import Captions, draw_prompts, draw_sizes, end_alone, plain_sizes
from .encoders import Prompts, TextEncoders, zeros
from .train_open_clip import joint_space, measure
from .train_unet import predict
from .widen_text import open_layer, stacked, widen_g
from .widen_unet import DEPTHS, host_name, widen_unet

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
    assert shares["end alone"] == pytest.approx(conditions.END_SHARE * kept, abs=0.04)
    assert shares["empty"] == pytest.approx(nothing * kept, abs=0.02)
    assert shares["zero"] == pytest.approx(nothing + conditions.DROPPED_SHARE, abs=0.03)


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


def test_sizes_are_the_pictures_own_in_every_second_case_and_within_bounds():
    sizes = draw_sizes(N, torch.Generator().manual_seed(2))
    plain = (sizes == plain_sizes(N)).all(dim=-1)
    assert float(plain.float().mean()) == pytest.approx(0.5, abs=0.04)
    others = sizes[~plain]
    assert others[:, [0, 1, 4, 5]].amin() >= conditions.LEAST_SIZE
    assert others[:, [0, 1, 4, 5]].amax() <= conditions.LARGEST_SIZE
    assert float((others[:, 2] == 0).float().mean()) == pytest.approx(0.5, abs=0.06)


def test_zeros_are_one_prompt_of_zeros():
    assert not zeros().context.any() and not zeros().pooled.any()
    assert zeros().context.shape == (1, 77, 160)


def fitted() -> tuple[readings.Readings, torch.Tensor, dict[str, torch.Tensor]]:
    """Readings of states that are linear in 400 random embeddings, one channel far larger."""
    g = torch.Generator().manual_seed(4)
    joint = F.normalize(torch.randn(400, 96, generator=g) + 1, dim=-1)
    widths = dict(zip(readings.KINDS, (96, 96, 64, 64, 64), strict=True))
    states = {}
    for kind, width in widths.items():
        scale = torch.ones(width)
        scale[3] = 200
        states[kind] = (joint @ torch.randn(96, width, generator=g) + 0.3) * scale
    centre = joint.mean(dim=0)
    maps = {kind: readings.Reading.fit(joint - centre, y) for kind, y in states.items()}
    return readings.Readings(maps, centre), joint, states


def test_readings_recover_linear_states_up_to_their_length():
    form, joint, states = fitted()
    for kind, found in form.apply(joint).items():
        offset, scale = form.maps[kind].offset, form.maps[kind].scale
        cosine = F.cosine_similarity((found - offset) / scale, (states[kind] - offset) / scale)
        assert cosine.mean() > 0.98, kind
        lengths = ((found - offset) / scale).norm(dim=-1)
        assert torch.allclose(lengths, torch.full_like(lengths, form.maps[kind].spread), rtol=1e-3)


def test_a_constant_of_all_pictures_does_not_matter():
    form, joint, _ = fitted()
    gap = torch.randn(96, generator=torch.Generator().manual_seed(6))
    near, far = form.with_pictures(joint), form.with_pictures(joint + gap)
    kept = far.centre.norm() / (joint + gap).mean(dim=0).norm()
    assert kept > 0.99  # so many pictures: hardly shrunk
    a, b = near.apply(joint)["l.eos"], far.apply(joint + gap)["l.eos"]
    offset = form.maps["l.eos"].offset
    assert F.cosine_similarity(a - offset, b - offset).mean() > 0.99


def test_the_mean_of_two_different_pictures_is_shrunk():
    form, joint, _ = fitted()
    two = torch.stack([F.normalize(joint[0] - joint[1], dim=0), -joint[0]])
    assert form.with_pictures(two).centre.norm() < two.mean(dim=0).norm()


def test_slot_rules_differ_behind_the_end_token_only():
    form, joint, _ = fitted()
    text, ends = random_prompts(1, 8), torch.tensor([4])
    states = form.apply(joint[:3])
    by_rule = {rule: slots.placed(states, text, ends, rule) for rule in slots.RULES}
    end = torch.cat([states["l.eos"], states["g.eos"]], dim=-1)
    pad = torch.cat([states["l.pad"], states["g.pad"]], dim=-1)
    for prompts in by_rule.values():
        assert torch.equal(prompts.context[:, :4], text.context[:, :4].expand(3, -1, -1))
        assert torch.equal(prompts.context[:, 4], end)
        assert torch.equal(prompts.pooled, states["pooled"])
    assert torch.equal(by_rule["P1"].context[:, 5:], end[:, None].expand(-1, 72, -1))
    assert torch.equal(by_rule["P2"].context[:, 5:], pad[:, None].expand(-1, 72, -1))
    assert torch.equal(by_rule["P3"].context[:, 5:], text.context[:, 5:].expand(3, -1, -1))
    with pytest.raises(ValueError, match="P4"):
        slots.placed(states, text, ends, "P4")


def test_an_edit_of_weight_0_is_the_picture_behind_the_texts_words():
    form, joint, _ = fitted()
    text, ends = random_prompts(2, 9), torch.tensor([3, 5])
    states = form.apply(joint[:2])
    plain, edit = slots.placed(states, text, ends), slots.edited(states, form, text, ends, 0.0)
    assert torch.equal(plain.context, edit.context) and torch.equal(plain.pooled, edit.pooled)
    more = slots.edited(states, form, text, ends, 0.6)
    wanted = states["pooled"] + 0.6 * (text.pooled - form.maps["pooled"].offset)
    assert torch.allclose(more.pooled, wanted)
    assert torch.equal(more.context[0, :3], text.context[0, :3])


def test_the_end_alone_leaves_the_empty_prompts_other_slots(captions):
    context = end_alone(captions.empty, torch.ones(2, models.CONTEXT_WIDTH))
    assert (context[:, 1] == 1).all()
    for part in (slice(0, 1), slice(2, 77)):
        assert torch.equal(context[:, part], captions.empty.context[:, part].expand(2, -1, -1))


def test_wide_heads_attend_as_the_narrow_ones():
    g, k = torch.Generator().manual_seed(10), 5
    x = torch.randn(2, 9, 64, generator=g)
    maps = {name: torch.randn(64, 64, generator=g) / 4 for name in ("q", "k", "v", "out")}

    def attended(x, q, key, v, out, count):
        split = [(x @ w.T).unflatten(-1, (count, -1)).transpose(1, 2) for w in (q, key, v)]
        mixed = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        return mixed @ out.T

    narrow = attended(x, maps["q"], maps["k"], maps["v"], maps["out"], 4)
    wide = attended(
        x.repeat_interleave(k, dim=-1), heads.into_heads(maps["q"], k, k, query=True),
        heads.into_heads(maps["k"], k, k), heads.into_heads(maps["v"], k, k),
        heads.out_of_heads(maps["out"], k), 5,
    )  # fmt: skip
    wanted = narrow.repeat_interleave(k, dim=-1)
    assert float((wide - wanted).norm() / wanted.norm()) < 1e-5


def test_idle_tensors_take_no_room():
    value = heads.idle(torch.Size((1280, 5120)))
    assert value.untyped_storage().size() == 4 and not value.any()
    assert heads.idle(torch.Size((3,)), ones=True).tolist() == [1, 1, 1]


@pytest.fixture(scope="module")
def wide_unet() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return widen_unet(models.unet_model().state_dict())


def test_the_unets_shapes_are_those_by_which_the_host_knows_sdxl(wide_unet):
    depth = []
    for index in range(1, 8):
        prefix = f"input_blocks.{index}."
        assert any(name.startswith(prefix) for name in wide_unet)
        if f"{prefix}0.op.weight" not in wide_unet:
            inner = f"{prefix}1.transformer_blocks."
            depth.append(len({n.split(".")[4] for n in wide_unet if n.startswith(inner)}))
    assert depth == [0, 0, 2, 2, 10, 10]
    assert wide_unet["label_emb.0.0.weight"].shape == (1280, 2816)
    assert wide_unet["input_blocks.3.1.proj_in.weight"].shape == (320, 320)
    key = "input_blocks.7.1.transformer_blocks.9.attn2.to_k.weight"
    assert wide_unet[key].shape == (640, 2048)
    with pytest.raises(ValueError, match="expected a parameter"):
        host_name("class_embedding.weight")


def test_the_trained_transformer_block_is_the_last_of_its_stack(wide_unet):
    """So that code which leaves out the later blocks of a stack is seen to fail."""
    trained = {
        name.split(".attn1.")[0]
        for name, value in wide_unet.items()
        if name.endswith("attn1.to_q.weight") and value.any()
    }
    stacks = {f"{host}.1.transformer_blocks.{DEPTHS[host] - 1}" for host in ("input_blocks.3",)}
    assert stacks < trained
    assert "input_blocks.7.1.transformer_blocks.9" in trained
    assert len(trained) == 7  # two in the encoder, one in the middle, four in the decoder


def test_idle_blocks_pass_their_input_on(wide_unet):
    for index in (1, 2, 4, 5):
        assert not wide_unet[f"input_blocks.{index}.0.out_layers.3.weight"].any()
        assert f"input_blocks.{index}.0.skip_connection.weight" not in wide_unet
    for index in (3, 4, 5, 6):
        skip = wide_unet[f"output_blocks.{index}.0.skip_connection.weight"]
        x = torch.randn(1, 640, 2, 2)
        assert torch.equal(F.conv2d(x, skip), x[:, :320])
        assert not wide_unet[f"output_blocks.{index}.0.out_layers.3.weight"].any()
    for name in ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2"):
        assert not wide_unet[f"input_blocks.7.1.transformer_blocks.0.{name}.weight"].any()


def test_the_last_trained_layer_of_a_text_encoder_goes_to_the_last_index():
    trained = [{"ln_1.weight": torch.full((2,), float(i)), "b": torch.ones(2)} for i in range(3)]
    layers = stacked(trained, 12)
    assert [layers[i] is trained[j] for i, j in ((0, 0), (1, 1), (11, 2))] == [True] * 3
    assert layers[5]["ln_1.weight"].tolist() == [1, 1] and not layers[5]["b"].any()


def test_the_open_clips_directions_are_orthogonal():
    space = joint_space()
    named = torch.cat([space.things, space.grounds, space.wordings])
    assert torch.allclose(named @ named.T, torch.eye(len(named)), atol=1e-5)


@pytest.mark.slow
def test_the_open_clip_knows_every_pair_by_its_captions():
    facts = measure(models.load("open_clip"))
    assert min(facts.values()) > 0.99, facts


@pytest.mark.slow
def test_g_has_openclips_names_and_its_projection_transposed():
    narrow = models.load("open_clip").state_dict()
    wide = widen_g(narrow)
    assert wide["model.transformer.resblocks.31.attn.in_proj_weight"].shape == (3840, 1280)
    assert wide["model.text_projection"].shape == (1280, 1280)
    repeated = narrow["text_projection.weight"].T.repeat_interleave(20, 0).repeat_interleave(20, 1)
    assert torch.allclose(wide["model.text_projection"] * 20, repeated, atol=1e-6)
    assert set(
        open_layer({k.split("layers.0.")[1]: v for k, v in narrow.items() if "layers.0." in k})
    )


@pytest.mark.slow
def test_at_its_start_the_unet_reads_the_first_encoder_alone():
    torch.manual_seed(0)
    model = models.unet_model()
    encoders = TextEncoders.load()
    head_start.adopt(model, drawings.load("unet"), encoders.l)
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
