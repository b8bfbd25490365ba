"""The nodes that the workflows use: their sockets, widgets and outputs, in the host's order.

A page's workflow lists widget values without names, so their order is part of the file format.
Read in 0.3.64 and 0.33.0; a test compares this table with what both hosts report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

CORE, OURS, PAGE = "comfy-core", "image-to-prompt", ""  # PAGE: the browser's own, never executed

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
CHECKPOINT_URL = (
    f"https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{CHECKPOINT}"
)
SDXL_CHECKPOINT = "sd_xl_base_1.0.safetensors"
SDXL_URL = (
    "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/"
    f"{SDXL_CHECKPOINT}"
)
CLIP = "model.safetensors"
CLIP_URL = f"https://huggingface.co/openai/clip-vit-large-patch14/resolve/main/{CLIP}"
_CLIP_FILE = {"name": CLIP, "url": CLIP_URL, "directory": "clip_vision"}


@dataclass(frozen=True)
class NodeSpec:
    """One node class.

    optional: sockets that may stay empty. widgets: defaults by name. page_widgets: what the page
    inserts after a widget and saves with it, though the host never sees it. files: what the page
    offers to download if it is missing: those that a widget names, else the first.
    since: the oldest host that has it, where that is not the oldest that the pack runs on.
    """

    title: str
    outputs: tuple[tuple[str, str], ...] = ()
    sockets: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    widgets: Mapping[str, object] = field(default_factory=dict)
    page_widgets: Mapping[str, object] = field(default_factory=dict)
    pack: str = CORE
    files: tuple[dict[str, str], ...] = ()
    size: tuple[int, int] = (270, 90)
    since: str = ""


_TRAINING = {
    "model": "MODEL",
    "vae": "VAE",
    "clip": "CLIP",
    "clip_vision": "CLIP_VISION",
    "projection": "PROJECTION",
    "image": "IMAGE",
}
_ENCODERS = {"projection": "PROJECTION", "clip": "CLIP", "clip_vision": "CLIP_VISION"}
_TRAINED = (("MODEL", "MODEL"), ("PROJECTION", "PROJECTION"), ("IMAGE", "IMAGE"))
_RATE = {"learning_rate": 0.0, "seed": 0}
_VIEW = {"crop": "center", "size": 512, "memory": "automatic"}

NODE_SPECS: Mapping[str, NodeSpec] = MappingProxyType(
    {
        "CheckpointLoaderSimple": NodeSpec(
            "Load Checkpoint",
            outputs=(("MODEL", "MODEL"), ("CLIP", "CLIP"), ("VAE", "VAE")),
            widgets={"ckpt_name": CHECKPOINT},
            files=(
                {"name": CHECKPOINT, "url": CHECKPOINT_URL, "directory": "checkpoints"},
                {"name": SDXL_CHECKPOINT, "url": SDXL_URL, "directory": "checkpoints"},
            ),
            size=(340, 100),
        ),
        "CLIPVisionLoader": NodeSpec(
            "Load CLIP Vision",
            outputs=(("CLIP_VISION", "CLIP_VISION"),),
            widgets={"clip_name": CLIP},
            files=(_CLIP_FILE,),
            size=(340, 60),
        ),
        "LoadProjection": NodeSpec(
            "Load Projection",
            outputs=(("PROJECTION", "PROJECTION"),),
            sockets={"clip": "CLIP", "image": "IMAGE", "clip_vision": "CLIP_VISION"},
            optional=("clip", "image", "clip_vision"),
            widgets={
                "file": CLIP,
                "method": "pseudo-inverse",
                "cutoff": 0.0,
                "captions": "",
                "gap": 0.0,
                "corpus_size": 4000,
            },
            pack=OURS,
            files=(_CLIP_FILE,),
            size=(340, 284),
        ),
        "LoadImage": NodeSpec(
            "Load Image",
            outputs=(("IMAGE", "IMAGE"), ("MASK", "MASK")),
            widgets={"image": "example.png"},
            page_widgets={"image": "image"},
            size=(340, 320),
        ),
        "ImageBatch": NodeSpec(
            "Batch Images",
            outputs=(("IMAGE", "IMAGE"),),
            sockets={"image1": "IMAGE", "image2": "IMAGE"},
            size=(220, 50),
        ),
        "ImageToPromptEmbed": NodeSpec(
            "Image To Prompt Embed",
            outputs=(("CONDITIONING", "CONDITIONING"),),
            sockets={
                "projection": "PROJECTION",
                "clip": "CLIP",
                "clip_vision": "CLIP_VISION",
                "image": "IMAGE",
                "mask": "MASK",
            },
            optional=("mask",),
            widgets={
                "text": "",
                "text_weight": 0.6,
                "strength": 1.0,
                "images": "one prompt per image",
                "crop": "center",
                "blend": "add",
                "image_weights": "",
                "pads": "picture",
                "mask_use": "hide the rest",
                "frames": "",
            },
            pack=OURS,
            size=(400, 385),
        ),
        "ImageToPromptLayout": NodeSpec(
            "Image To Prompt Layout",
            outputs=(("CONDITIONING", "CONDITIONING"),),
            sockets=_ENCODERS | {"image": "IMAGE"},
            widgets={
                "tiles": "by aspect",
                "mode": "areas",
                "text": "",
                "text_weight": 0.6,
                "strength": 1.0,
                "whole": 0.1,
                "feather": 0.25,
            },
            pack=OURS,
            size=(400, 340),
        ),
        "ImageToPromptBlocks": NodeSpec(
            "Image To Prompt Blocks",
            outputs=(("CONDITIONING", "CONDITIONING"),),
            sockets={"conditioning": "CONDITIONING", "base": "CONDITIONING"},
            widgets={"preset": "style", "weights": "", "part": "keys and values"},
            pack=OURS,
            size=(400, 180),
        ),
        "ImageToPromptMix": NodeSpec(
            "Image To Prompt Mix",
            outputs=(("CONDITIONING", "CONDITIONING"),),
            sockets=_ENCODERS | {"image_a": "IMAGE", "image_b": "IMAGE"},
            optional=("image_b",),
            widgets={
                "mode": "take from image_b",
                "concept": "style",
                "amount": 1.0,
                "text": "",
                "text_weight": 0.6,
                "strength": 1.0,
                "crop": "center",
                "blend": "add",
                "words": "",
            },
            pack=OURS,
            size=(400, 460),
        ),
        "OnlineRefine": NodeSpec(
            "Online Refine",
            outputs=_TRAINED,
            sockets=_TRAINING,
            widgets={
                "steps": 30,
                "preset": "transformer blocks",
                **_RATE,
                **_VIEW,
                "preview_every": 10,
                "keep_texts": "",
            },
            pack=OURS,
            size=(400, 500),
        ),
        "FitProjection": NodeSpec(
            "Fit Projection",
            outputs=_TRAINED,
            sockets={**_TRAINING, "regularization_image": "IMAGE"},
            optional=("regularization_image",),
            widgets={
                "epochs": 30,
                "preset": "transformer blocks",
                **_RATE,
                "held_out": 0.1,
                "patience": 10,
                **_VIEW,
                "preview_every": 50,
            },
            pack=OURS,
            size=(400, 470),
        ),
        "ApplyProjection": NodeSpec(
            "Apply Projection",
            outputs=(("MODEL", "MODEL"),),
            sockets={"model": "MODEL", "projection": "PROJECTION"},
            widgets={"strength": 1.0},
            pack=OURS,
            size=(400, 90),
        ),
        "SaveProjection": NodeSpec(
            "Save Projection",
            sockets={"projection": "PROJECTION"},
            widgets={"filename_prefix": "projection", "save_lora": False},
            pack=OURS,
            size=(400, 90),
        ),
        "LoadImageDataSetFromFolder": NodeSpec(
            "Load Image (from Folder)",
            outputs=(("images", "IMAGE"),),
            widgets={"folder": "pictures"},
            size=(340, 60),
            since="0.33.0",
        ),
        "PreviewImage": NodeSpec("Preview Image", sockets={"images": "IMAGE"}, size=(400, 300)),
        "CLIPTextEncode": NodeSpec(
            "CLIP Text Encode (Prompt)",
            outputs=(("CONDITIONING", "CONDITIONING"),),
            sockets={"clip": "CLIP"},
            widgets={"text": ""},
            size=(400, 120),
        ),
        "ConditioningSetAreaPercentage": NodeSpec(
            "Conditioning (Set Area with Percentage)",
            outputs=(("CONDITIONING", "CONDITIONING"),),
            sockets={"conditioning": "CONDITIONING"},
            widgets={"width": 1.0, "height": 1.0, "x": 0.0, "y": 0.0, "strength": 1.0},
            size=(330, 160),
        ),
        "ConditioningCombine": NodeSpec(
            "Conditioning (Combine)",
            outputs=(("CONDITIONING", "CONDITIONING"),),
            sockets={"conditioning_1": "CONDITIONING", "conditioning_2": "CONDITIONING"},
            size=(250, 50),
        ),
        "EmptyLatentImage": NodeSpec(
            "Empty Latent Image",
            outputs=(("LATENT", "LATENT"),),
            widgets={"width": 512, "height": 512, "batch_size": 1},
            size=(300, 110),
        ),
        "KSampler": NodeSpec(
            "KSampler",
            outputs=(("LATENT", "LATENT"),),
            sockets={
                "model": "MODEL",
                "positive": "CONDITIONING",
                "negative": "CONDITIONING",
                "latent_image": "LATENT",
            },
            widgets={
                "seed": 0,
                "steps": 25,
                "cfg": 7.5,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
            },
            page_widgets={"seed": "randomize"},  # "control after generate"
            size=(300, 262),
        ),
        "VAEDecode": NodeSpec(
            "VAE Decode",
            outputs=(("IMAGE", "IMAGE"),),
            sockets={"samples": "LATENT", "vae": "VAE"},
            size=(200, 50),
        ),
        "SaveImage": NodeSpec(
            "Save Image",
            sockets={"images": "IMAGE"},
            widgets={"filename_prefix": "image-to-prompt"},
            size=(420, 460),
        ),
        "MarkdownNote": NodeSpec("Markdown Note", widgets={"": ""}, pack=PAGE, size=(400, 420)),
    }
)
