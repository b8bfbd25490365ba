"""U-Nets of SD 1.x, SD 2.x and SDXL and a VAE, with random weights, as the host loads them.

Random weights: these prove wiring, nothing about pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The smallest that the host takes for SD 1.x and that has every place a cross-attention can have.
SMALL = {"channel_mult": (1,), "num_res_blocks": 1, "depths": (1,)}
# As few blocks, with a second width: what FreeU and HyperTile change has 640 channels.
TWO_WIDTHS = {"channel_mult": (1, 2), "num_res_blocks": 1, "depths": (1, 1)}
FULL = {"channel_mult": (1, 2, 4, 4), "num_res_blocks": 2, "depths": (1, 1, 1, 0)}
_LINEAR = {"num_heads": -1, "num_head_channels": 64, "use_linear_in_transformer": True}
SMALL_SD2 = {**SMALL, "unet": {**_LINEAR, "context_dim": 1024}}
# The host takes for SDXL what has these depths on the way down; all other numbers are free.
SMALL_SDXL = {
    "channel_mult": (1, 1, 1),
    "num_res_blocks": 2,
    "unet": {
        **_LINEAR,
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0] * 8 + [1],
        "context_dim": 2048,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
    },
}
# The same blocks, a fifth as wide: no detection takes it, so it is made by the host's class itself.
NARROW_SDXL = {**SMALL_SDXL, "unet": {**SMALL_SDXL["unet"], "model_channels": 64}}
PREFIX = "model.diffusion_model."


def unet_state(shape: dict, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """Weights of a U-Net under the names of checkpoints; scaled so that it stays finite."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        names = _unet(shape).state_dict()
    return {name: _random(name, weight, generator).to(dtype) for name, weight in names.items()}


def _unet(shape: dict):
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    depths = shape.get("depths", ())
    options = {
        "model_channels": 320,
        "num_heads": 8,
        "transformer_depth": [d for d in depths for _ in range(shape["num_res_blocks"])],
        "transformer_depth_output": [d for d in depths for _ in range(shape["num_res_blocks"] + 1)],
        "context_dim": 768,
    }
    return UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        num_res_blocks=[shape["num_res_blocks"]] * len(shape["channel_mult"]),
        channel_mult=shape["channel_mult"],
        use_spatial_transformer=True,
        transformer_depth_middle=1,
        legacy=False,
        dtype=torch.float32,
        **{**options, **shape.get("unet", {})},
    )


def _random(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    # A million numbers, over and over: drawing all of a full-size U-Net's would take a minute.
    count = like.numel()
    noise = torch.randn(min(count, 1_000_003), generator=generator)
    noise = noise.repeat(-(-count // len(noise)))[:count].view(like.shape)
    if like.ndim == 1:
        scale = 1 + 0.05 * noise if name.endswith("weight") else 0.05 * noise
        return scale
    return noise / like[0].numel() ** 0.5


def host_model(state: dict[str, Tensor], dtype: torch.dtype | None = None, inference: bool = True):
    """A MODEL of these weights; dtype: how the host is to store them; as in a node or not."""
    import comfy.sd

    options = {} if dtype is None else {"dtype": dtype}
    with torch.inference_mode(inference):
        copies = {name: weight.clone() for name, weight in state.items()}
        return comfy.sd.load_diffusion_model_state_dict(copies, model_options=options)


def host_sdxl(shape: dict, state: dict[str, Tensor], dtype: torch.dtype | None = None):
    """A MODEL of the host's class SDXL and of this shape; dtype: how the host is to store it."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    with torch.inference_mode():
        blocks = shape["num_res_blocks"]
        config = comfy.supported_models.SDXL(
            {
                "image_size": 32,
                "in_channels": 4,
                "out_channels": 4,
                "num_res_blocks": [blocks] * len(shape["channel_mult"]),
                "channel_mult": shape["channel_mult"],
                "use_spatial_transformer": True,
                "transformer_depth_middle": 1,
                "legacy": False,
                **shape["unet"],
            }
        )
        stored = dtype or torch.float32
        config.set_inference_dtype(stored, None if stored == torch.float32 else torch.float32)
        model = config.get_model(state, "", device=torch.device("cpu"))
        model.load_model_weights({name: weight.clone() for name, weight in state.items()}, "")
        cpu = comfy.model_management.get_torch_device()
        return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def host_vae(seed: int = 0):
    """A small VAE of SD 1.x's latents: TAESD with random weights."""
    import comfy.sd
    from comfy.taesd.taesd import TAESD

    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, weight in TAESD().state_dict().items():
        if weight.ndim > 1:
            fan = weight[0].numel()
            state[name] = torch.randn(weight.shape, generator=generator) / fan**0.5
        else:
            state[name] = torch.zeros_like(weight)
    state["vae_scale"], state["vae_shift"] = torch.tensor(0.18215), torch.tensor(0.0)
    return comfy.sd.VAE(sd=state)
