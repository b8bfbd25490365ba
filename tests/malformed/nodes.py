"""Malformed inputs of ImageToPromptEmbed: pictures, numbers, choices, weights, pairings.

Each case is given tools by tests/host/test_malformed.py: `embed` calls the node with good inputs
but for those named.
"""

from __future__ import annotations

import torch

from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.malformed.case import Case
from image_to_prompt.tests.malformed.stand_ins import SIZE, Clip, ClipVision

NAN, INF = float("nan"), float("inf")
PICTURE = torch.rand(2, 8, 8, 3, generator=builders.generator(0))


def _embed(name: str, says: tuple[str, ...], **bad: object) -> Case:
    return Case(f"embed: {name}", lambda tools: tools.embed(**bad), says)


def _spoilt(value: float) -> torch.Tensor:
    picture = PICTURE.clone()
    picture[1, 2, 3, 0] = value
    return picture


# --- pictures ---------------------------------------------------------------------------------

IMAGE = ("socket image",)
PICTURES = [
    *(
        _embed(f"image {name}", (*IMAGE, got), image=image)
        for name, image, got in (
            ("nothing", None, "NoneType"),
            ("a file name", "photo.png", "str"),
            ("a list of pictures", [PICTURE], "list"),
            ("a latent", {"samples": PICTURE}, "dict"),
            ("an array", PICTURE.numpy(), "ndarray"),
            ("a number", 0.5, "float"),
        )
    ),
    *(
        _embed(f"image of shape {shape}", (*IMAGE, str(shape)), image=torch.zeros(shape))
        for shape in (
            (),
            (3,),
            (8, 8),
            (8, 8, 3),
            (1, 1, 8, 8, 3),
            (0, 8, 8, 3),
            (1, 0, 8, 3),
            (1, 8, 0, 3),
            (1, 8, 8, 0),
            (1, 8, 8, 2),
            (0, 0, 0, 0),
        )
    ),
    *(
        _embed(
            f"image with {value} in one pixel", (*IMAGE, "NaN or infinite"), image=_spoilt(value)
        )
        for value in (NAN, INF, -INF)
    ),
    _embed("image with channels first", (*IMAGE, "(1, 3, 64, 64)"), image=torch.ones(1, 3, 64, 64)),
    _embed("image all NaN", (*IMAGE, "NaN or infinite"), image=PICTURE * NAN),
    _embed("grey image with NaN", (*IMAGE, "NaN"), image=torch.full((1, 8, 8, 1), NAN)),
    _embed("RGBA image with NaN", (*IMAGE, "NaN"), image=torch.full((1, 8, 8, 4), NAN)),
    *(
        _embed(
            f"image {width} wide and {height} high, cropped",
            (*IMAGE, "1:64", f"{width}x{height}", "crop 'center'"),
            image=torch.zeros(1, height, width, 3),
        )
        for width, height in ((65, 1), (1, 65), (1, 5000), (5000, 3), (130, 2))
    ),
]

_NESTED = torch.nested.nested_tensor([PICTURE[0], PICTURE[1]])
_QUANTISED = torch.quantize_per_tensor(PICTURE, 1 / 255, 0, torch.quint8)
KINDS = [
    *(
        _embed(f"image that is {name}", (*IMAGE, got), image=image)
        for name, image, got in (
            ("on the meta device", PICTURE.to("meta"), "a meta tensor"),
            ("sparse", PICTURE.to_sparse(), "sparse"),
            ("nested", _NESTED, "a nested tensor"),
            ("quantised", _QUANTISED, "quint8"),
            ("of whole numbers", (PICTURE * 255).to(torch.uint8), "uint8"),
            ("of truth values", PICTURE > 0.5, "bool"),
            ("complex", PICTURE.to(torch.complex64), "complex64"),
            ("on the scale to 255", PICTURE * 255, "pixels from 0 to 1"),
        )
    ),
    *(
        _embed(f"text {name}", ("text as a text", got), text=text)
        for name, text, got in (
            ("nothing", None, "None"),
            ("a number", 5, "5"),
            ("a list", ["a"], "list"),
            ("with half a character", "a dog \ud83d", r"\ud83d"),
        )
    ),
    *(
        _embed(
            f"image_weights {value!r}",
            ("image_weights as a text", "Correct image_weights"),
            image_weights=value,
            images="one prompt from all",
        )
        for value in (None, 1.0, [1, 2], "1, \udc80")
    ),
    *(
        _embed(f"pads {value!r}", ("pads among 'picture'", repr(value)), pads=value)
        for value in ("", "EOS", None, 3)
    ),
    *(
        _embed(
            f"{socket} {value!r}", (f"a {socket.upper()}", f"socket {socket}"), **{socket: value}
        )
        for socket in ("clip",)
        for value in ("model.safetensors", 3, {})
    ),
    _embed("strength of infinite effect", ("finite numbers",), clip=Clip(scale=1e35), strength=9e5),
]

# --- numbers and choices ----------------------------------------------------------------------

NUMBERS = [
    *(
        _embed(
            f"{name} {value}", (f"a finite {name}", str(value), f"Correct {name}"), **{name: value}
        )
        for name in ("text_weight", "strength")
        for value in (NAN, INF, -INF)
    ),
    *(
        _embed(f"{name} {value!r}", (name,), **{name: value})
        for name in ("text_weight", "strength")
        for value in (None, "strong")
    ),
    *(
        _embed(f"{name} of {what}", (name,), **{name: value})
        for name in ("text_weight", "strength")
        for what, value in (("401 digits", 10**400), ("1e39, which float32 lacks", 1e39))
    ),
    *(
        _embed(f"{name} {value!r}", (f"{name} among", good, repr(value)), **{name: value})
        for name, good in (
            ("images", "'one prompt from all'"),
            ("crop", "'center', 'none'"),
            ("blend", "'add, keep length'"),
        )
        for value in ("", "other", None, 0, True)
    ),
    _embed("crop with a capital", ("crop among", "'Center'"), crop="Center"),
    _embed("crop in British", ("crop among", "'centre'"), crop="centre"),
]

# --- weights of pictures ----------------------------------------------------------------------

ALL = {"images": "one prompt from all"}
WEIGHTS = [
    *(
        _embed(
            f"image_weights {text!r}",
            ("numbers separated by commas, one per image", repr(text), "Correct image_weights"),
            image_weights=text,
            **ALL,
        )
        for text in ("a", "1, b", "1 2 x", ",", ",1", "0x10 1", "1/2 1", "50% 50%", "1..5 1", "- 1")
    ),
    *(
        _embed(
            f"image_weights {text!r}, {images}",
            ("2 finite weights", "one per image", "image_weights"),
            image_weights=text,
            images=images,
        )
        for images in (ALL["images"], "one prompt from all, slots shared")
        for text in ("1", "1 2 3", "0, 0", "-1, -2", "nan 1", "1 inf", "1e400 1", "-.5;0", "1 -inf")
    ),
    *(
        _embed(
            f"image_weights that cancel, {images}",
            ("weights that cancel", "image_weights"),
            clip_vision=ClipVision(embeds=torch.ones(2, SIZE)),
            image_weights="1, -1",
            images=images,
        )
        for images in (ALL["images"], "one prompt from all, slots shared")
    ),
    _embed(
        "opposite pictures",
        ("opposite directions", "one prompt per image"),
        clip_vision=ClipVision(embeds=torch.cat([torch.ones(1, SIZE), -torch.ones(1, SIZE)])),
        **ALL,
    ),
]

# --- pairings ---------------------------------------------------------------------------------

TEXT = ("the text encoder of SD 1.x", "SD 1.x checkpoint (socket clip)")
VISION = ("joint width 32", "socket clip_vision", "Load CLIP Vision", "clip-vit-large-patch14")
PAIRINGS = [
    *(
        _embed(f"projection {name}", ("a PROJECTION", got, "socket projection"), projection=value)
        for name, value, got in (
            ("nothing", None, "NoneType"),
            ("a file name", "clip.safetensors", "str"),
            ("a dictionary", {"matrix": PICTURE}, "dict"),
            ("a matrix", builders.text_projection(), "Tensor"),
            ("a number", 1, "int"),
        )
    ),
    _embed("clip nothing", ("a CLIP", "no text encoder", *TEXT[1:]), clip=None),
    *(
        _embed(f"clip of {name}", (*TEXT, got, ", ".join(sorted(parts))), clip=Clip(parts))
        for name, parts, got in (
            ("SDXL", ("l", "g"), "SDXL"),
            ("the SDXL refiner", ("g",), "SDXL"),
            ("SD 2.x", ("h",), "SD 2.x"),
            ("SD3", ("l", "g", "t5xxl"), "SD3"),
            ("HiDream", ("l", "g", "t5xxl", "llama"), "HiDream"),
            ("FLUX", ("l", "t5xxl"), "Flux"),
            ("T5 alone", ("t5xxl",), "T5"),
            ("another model", ("gemma2_2b",), "another model"),
            ("another model with more parts", ("llama", "l"), "another model"),
            ("nothing known", (), "another model"),
        )
    ),
    *(
        _embed(
            f"clip of width {width}",
            ("a text encoder of width 32", f"width {width}", "socket clip"),
            clip=Clip(width=width),
        )
        for width in (768, 1024, 1280, 31)
    ),
    _embed("clip whose tokens have no end", ("EOS", "socket clip"), clip=Clip(end=7), text="a"),
    *(
        _embed(
            f"clip with {length} states",
            ("77 slots", "socket clip"),
            clip=Clip(length=length),
            text="a",
        )
        for length in (1, 76)
    ),
    *(
        _embed(
            f"clip whose states are {width} wide, text {text!r}",
            ("a text encoder of width 32", "clip"),
            clip=Clip(states_width=width),
            text=text,
        )
        for width in (31, 64)
        for text in ("", "a word")
    ),
    _embed("clip_vision nothing", (*VISION, "no CLIP vision model"), clip_vision=None),
    *(
        _embed(f"clip_vision of {name}", (*VISION, got), clip_vision=ClipVision(joint=joint))
        for name, joint, got in (
            ("ViT-H, as for IP-Adapter", 1024, "joint width 1024 (ViT-H)"),
            ("ViT-bigG", 1280, "joint width 1280 (ViT-bigG)"),
            ("ViT-B", 512, "joint width 512 (ViT-B)"),
            ("an unknown width", 77, "joint width 77"),
            ("ViT-L/14 with a small projection", 768, "joint width 768"),
        )
    ),
    _embed(
        "clip_vision without projection, as SigLIP and DINO",
        (*VISION, "without a CLIP projection"),
        clip_vision=ClipVision(has_projection=False),
    ),
    _embed("clip_vision of something else", (*VISION, "without"), clip_vision=object()),
    *(
        _embed(
            f"clip_vision that gives {name}",
            ("finite numbers that are not all zero", "socket image", "CLIP vision model"),
            clip_vision=ClipVision(embeds=torch.full((1, SIZE), value)),
        )
        for name, value in (("NaN", NAN), ("zeros", 0.0), ("infinite numbers", INF))
    ),
    *(
        _embed(
            f"clip_vision that gives {width} numbers",
            ("(B, 32)", f"(1, {width})", "socket clip_vision"),
            clip_vision=ClipVision(embeds=torch.ones(1, width)),
        )
        for width in (31, 48, 1024)
    ),
]

CASES = [*PICTURES, *KINDS, *NUMBERS, *WEIGHTS, *PAIRINGS]
