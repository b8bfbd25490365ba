"""MODELs with run-time patches: of core's own nodes, and of one that works as IPAdapter does."""

from __future__ import annotations

import torch

from image_to_prompt.tests.host.training_tools import generator

ATTN2 = {"input_blocks.1.1": ("input", 1), "middle_block.1": ("middle", 0)}


def run(node, *args, **kwargs):
    """A core node's result, whichever style of node the host has."""
    with torch.inference_mode():
        if hasattr(node, "define_schema"):
            return node.execute(*args, **kwargs)[0]
        return getattr(node(), node.FUNCTION)(*args, **kwargs)[0]


def free_u(model, b2=1.4):
    from comfy_extras.nodes_freelunch import FreeU

    return run(FreeU, model, 1.3, b2, 0.9, 0.2)


def free_u_v2(model, b2=1.4):
    from comfy_extras.nodes_freelunch import FreeU_V2

    return run(FreeU_V2, model, 1.3, b2, 0.9, 0.2)


def deep_shrink(model, after_skip=True, end=0.35):
    from comfy_extras.nodes_model_downscale import PatchModelAddDownscale

    return run(PatchModelAddDownscale, model, 1, 2.0, 0.0, end, after_skip, "bicubic", "bicubic")


def hyper_tile(model, swap_size=4):
    from comfy_extras.nodes_hypertile import HyperTile

    return run(HyperTile, model, 32, swap_size, 1, False)


def token_merging(model):
    from comfy_extras.nodes_tomesd import TomePatchModel

    return run(TomePatchModel, model, 0.5)


def perp_neg(model):
    from comfy_extras.nodes_perpneg import PerpNeg

    return run(PerpNeg, model, [[torch.zeros(1, 77, 768), {}]], 1.0)


def attention_guidance(model):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    return run(PerturbedAttentionGuidance, model, 3.0)


def self_attention_guidance(model):
    from comfy_extras.nodes_sag import SelfAttentionGuidance

    return run(SelfAttentionGuidance, model, 0.5, 2.0)


class ImageAttention:
    """What an IP adapter does: further keys and values for each attn2, from an image's tokens.

    It reads of extra_options what IPAdapter_plus reads, and holds tensors of a node's own.
    """

    def __init__(self, tokens, to_k, to_v, weight, sigma_start, sigma_end):
        self.tokens, self.to_k, self.to_v = tokens, to_k, to_v
        self.weight, self.sigma_start, self.sigma_end = weight, sigma_start, sigma_end

    def __call__(self, q, k, v, extra_options):
        from comfy.ldm.modules.attention import optimized_attention

        out = optimized_attention(q, k, v, extra_options["n_heads"])
        sigma = extra_options["sigmas"].detach().cpu()[0].item()
        if not self.sigma_end <= sigma <= self.sigma_start:
            return out
        pairs = extra_options["cond_or_uncond"]
        tokens = torch.cat([(self.tokens, torch.zeros_like(self.tokens))[n] for n in pairs])
        tokens = tokens.repeat(len(q) // len(pairs), 1, 1)
        keys, values = self.to_k(tokens), self.to_v(tokens)
        image = optimized_attention(q, keys, values, extra_options["n_heads"])
        return out + image * self.weight


def ip_adapter(model, weight=0.8, sigma_start=1e9):
    with torch.inference_mode():
        patched = model.clone()
        unet = model.model.diffusion_model
        for name, place in ATTN2.items():
            width = unet.get_submodule(f"{name}.transformer_blocks.0.attn2.to_k").out_features
            linears = [torch.nn.Linear(768, width, bias=False) for _ in range(2)]
            for number, linear in enumerate(linears):
                noise = torch.randn(width, 768, generator=generator(number)) / 768**0.5
                linear.weight = torch.nn.Parameter(noise, requires_grad=False)
            tokens = torch.randn(1, 4, 768, generator=generator(5))
            scale = torch.full((1, 1, 1), weight)
            patch = ImageAttention(tokens, *linears, scale, sigma_start, 0.0)
            patched.set_model_attn2_replace(patch, *place)
        return patched


def attn2_input(model):
    """A patch of what attn2 reads, scaled by a tensor of the node's own."""
    with torch.inference_mode():
        scale = torch.full((1, 1, 768), 1.5)
        patched = model.clone()

        def patch(n, context, value, extra_options):
            assert extra_options["cond_or_uncond"] == [0] and len(extra_options["uuids"]) == 1
            return n, context * scale, value * scale

        patched.set_model_attn2_patch(patch)
        return patched


CHANGING = {
    "FreeU": free_u,
    "FreeU V2": free_u_v2,
    "Deep Shrink": deep_shrink,
    "Deep Shrink before the skip": lambda model: deep_shrink(model, after_skip=False),
    "HyperTile": hyper_tile,
    "token merging": token_merging,
    "IP adapter": ip_adapter,
    "attn2 patch": attn2_input,
}
GUIDANCE = {
    "PerpNeg": perp_neg,
    "PerturbedAttentionGuidance": attention_guidance,
    "SelfAttentionGuidance": self_attention_guidance,
}
