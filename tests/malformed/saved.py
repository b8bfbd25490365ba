"""Malformed saved projections: damaged, newer, or not one at all."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from image_to_prompt.projection import load_file, load_projection, save_projection
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.malformed.case import Case

NAME = "saved.safetensors"
GONE = "(removed)"


def rewritten(folder: Path, metadata: dict, tensors: dict, bias: bool = False) -> Path:
    """A good saved projection with some of its metadata and tensors changed or removed."""
    path = folder / NAME
    good = builders.small_projection()
    save_projection(builders.with_bias(good) if bias else good, path)
    with safe_open(path, "pt") as file:
        old = dict(file.metadata()), {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    new_metadata = {k: v for k, v in {**old[0], **metadata}.items() if v != GONE}
    new_tensors = {k: v for k, v in {**old[1], **tensors}.items() if v is not None}
    save_file(new_tensors, path, new_metadata)
    return path


def _case(name: str, says: tuple[str, ...], bias: bool = False, **changes) -> Case:
    tensors = {k: v for k, v in changes.items() if v is None or isinstance(v, torch.Tensor)}
    metadata = {k: v for k, v in changes.items() if isinstance(v, str)}

    def act(folder: Path) -> object:
        return load_file(rewritten(folder, metadata, tensors, bias))

    return Case(f"saved: {name}", act, says)


def _encoder(**changes: object) -> str:
    good = {
        "text_width": 32,
        "joint_width": 32,
        "vision_width": 48,
        "text_projection": "0",
        "visual_projection": "0",
    }
    return json.dumps({k: v for k, v in {**good, **changes}.items() if v != GONE})


WHOLE = ("a whole projection file", NAME, "SaveProjection")
DAMAGED = ("damaged", "LoadProjection", "SaveProjection")
NEWER = (f"{NAME} of version", "Update Image-to-Prompt")
BAD = {"no JSON": "abc", "null": "null", "a list": "[]", "an object": "{}"}
M = builders.small_projection().matrix
S = builders.small_projection().singular_values

METADATA = [
    *(
        _case(f"no {key}", (*WHOLE, key), **{key: GONE})
        for key in ("format_version", "features", "encoder", "method", "cutoff", "kept", "norm")
    ),
    *(
        _case(f"{key} is {what}", WHOLE, **{key: text})
        for key in ("cutoff", "kept", "norm", "encoder")
        for what, text in BAD.items()
    ),
    *(
        _case(f"format_version is {text!r}", WHOLE, format_version=text)
        for text in ("", "one", "1.5", "null", "[1]", "9" * 5000)
    ),
    *(_case(f"features is {text}", WHOLE, features=text) for text in ("", "bias", "null", "7")),
    *(_case(f"{key} is a word", WHOLE, **{key: '"x"'}) for key in ("cutoff", "kept", "norm")),
    *(_case(f"kept is {text}", WHOLE, kept=text) for text in ("NaN", "Infinity", "1e999")),
    *(
        _case(f"{key} is {text}", DAMAGED, **{key: text})
        for key in ("cutoff", "norm")
        for text in ("NaN", "Infinity", "-Infinity", "0", "-1.5", "1e999")
    ),
    *(_case(f"format_version is {text}", WHOLE, format_version=text) for text in ("0", "-5", " 1")),
    *(_case(f"kept is {text}", WHOLE, kept=text) for text in ("1.5", "3.0", "true", '"3"')),
    *(
        _case(f"{key} is {text}", WHOLE, **{key: text})
        for key in ("cutoff", "norm")
        for text in ("true", '"0.3"', "1" * 20_000)
    ),
    *(
        _case(f"norm is {text}", (*DAMAGED, "1e-30 to 1e+30"), norm=text)
        for text in ("1e-320", "1e308", "1e-31", "1e31")
    ),
    *(
        _case(f"features is {what}", WHOLE, features=text)
        for what, text in (
            ("a number in a list", "[1]"),
            ("a list in a list", "[[]]"),
            ("an object", '{"bias": 1}'),
            ("nested too deep", "[" * 100_000),
            ("nested deep and whole", "[" * 4000 + "]" * 4000),
        )
    ),
    _case("encoder is nested deep", WHOLE, encoder='{"a":' * 2000 + "1" + "}" * 2000),
    *(_case(f"kept is {text} of 32", DAMAGED, kept=text) for text in ("0", "-1", "33", "1000000")),
]

VERSIONS = [
    *(
        _case(f"format version {v}", (*NEWER, f"version {v}"), format_version=v)
        for v in ("2", "99", "1000000")
    ),
    *(
        _case(f"the unknown feature {f}", (*NEWER, f), features=json.dumps(["bias", f]))
        for f in ("deep prompts", "cross attention")
    ),
    _case("an unknown feature and version", (*NEWER, "x"), features='["x"]', format_version="3"),
    _case("another format", ("holds none of", "LoadProjection"), format="someone else's"),
    _case("no format", ("holds none of", "LoadProjection"), format=GONE),
]

ENCODERS = [
    *(
        _case(f"encoder without {key}", (*WHOLE, key), encoder=_encoder(**{key: GONE}))
        for key in ("text_width", "joint_width", "vision_width", "text_projection")
    ),
    *(
        _case(f"encoder with the {key} {v!r}", ("fingerprints",), encoder=_encoder(**{key: v}))
        for key in ("text_projection", "visual_projection")
        for v in (5, ["0"], False)
    ),
    _case("encoder with an unknown field", (*WHOLE, "layers"), encoder=_encoder(layers=12)),
    *(
        _case(
            f"encoder with {key} {value!r}",
            ("encoder widths >= 1",),
            encoder=_encoder(**{key: value}),
        )
        for key in ("text_width", "joint_width")
        for value in (0, -1, "32", 32.0, None)
    ),
    *(
        _case(
            f"encoder with vision_width {value!r}",
            ("widths",),
            encoder=_encoder(vision_width=value),
        )
        for value in (-1, "48", 4.5, 0, True, 10**400)
    ),
    *(
        _case(f"encoder with another {key}", DAMAGED, encoder=_encoder(**{key: 33}))
        for key in ("text_width", "joint_width")
    ),
]

TENSORS = [
    _case("no matrix", (*WHOLE, "matrix"), matrix=None),
    _case("no singular values", (*WHOLE, "singular_values"), singular_values=None),
    _case("a matrix on its side", DAMAGED, matrix=M[:20].T.contiguous()),
    _case("a matrix with a row missing", DAMAGED, matrix=M[:-1]),
    _case("a matrix with a column too many", DAMAGED, matrix=torch.cat([M, M[:, :1]], 1)),
    _case("a matrix of three dimensions", DAMAGED, matrix=M[None]),
    _case("a matrix that is a vector", DAMAGED, matrix=M.flatten()),
    _case("a matrix in half precision", (*DAMAGED, "float16"), matrix=M.half()),
    _case("a matrix of whole numbers", (*DAMAGED, "int32"), matrix=M.int()),
    _case("a matrix with NaN", DAMAGED, matrix=M.where(M.max() > M, torch.nan)),
    _case("a matrix with an infinite number", DAMAGED, matrix=M.where(M.max() > M, torch.inf)),
    _case("singular values in rows", DAMAGED, singular_values=S[None]),
    _case("no singular value", DAMAGED, singular_values=S[:0]),
    _case("fewer singular values than kept", DAMAGED, singular_values=S[:3]),
    _case("singular values with NaN", DAMAGED, singular_values=S * torch.nan),
    _case("singular values in double", (*DAMAGED, "float64"), singular_values=S.double()),
    Case(
        "saved: a bias of another width",
        lambda folder: load_file(rewritten(folder, {}, {"bias": torch.ones(5)}, bias=True)),
        (*DAMAGED, "bias"),
    ),
    Case(
        "saved: a bias with NaN",
        lambda folder: load_file(
            rewritten(folder, {}, {"bias": torch.ones(32) * torch.nan}, bias=True)
        ),
        DAMAGED,
    ),
    Case(
        "saved: a bias that is announced and not there",
        lambda folder: load_file(rewritten(folder, {}, {"bias": None}, bias=True)),
        (*WHOLE, "bias"),
    ),
]

NAME_OF_MAP = "cross-attention.input_blocks.1.1.transformer_blocks.0.attn2.to_k"
RESIDUAL = {
    "residual.down": torch.zeros(2, 32),
    "residual.up": torch.zeros(32, 2),
    "residual.shift": torch.ones(32),
}
UNANNOUNCED = {
    "a bias": ("bias", {"bias": torch.ones(32)}),
    "a residual": ("residual", RESIDUAL),
    "deep prompts": (
        "vision prompts",
        {"vision prompts.tokens": torch.ones(2, 3, 48), "vision prompts.gates": torch.ones(2, 4)},
    ),
    "a change of the model": ("cross-attention", {f"{NAME_OF_MAP}.matrix": torch.ones(8, 32)}),
    "an unknown tensor": ("layers.0", {"layers.0": torch.ones(2)}),
}
PARTS = [
    *(
        Case(
            f"saved: {what} that is not announced",
            lambda folder, t=tensors: load_file(rewritten(folder, {}, t)),
            (*WHOLE, says),
        )
        for what, (says, tensors) in UNANNOUNCED.items()
    ),
    Case(
        "saved: a residual with a tensor too many",
        lambda folder: load_file(
            rewritten(
                folder,
                {"features": '["residual"]'},
                {**RESIDUAL, "residual.more": torch.ones(1)},
            )
        ),
        (*WHOLE, "residual.more"),
    ),
    *(
        Case(
            f"saved: a residual without its {part}",
            lambda folder, p=part: load_file(
                rewritten(
                    folder,
                    {"features": '["residual"]'},
                    {k: v for k, v in RESIDUAL.items() if k != f"residual.{p}"},
                )
            ),
            (*WHOLE, part),
        )
        for part in ("down", "up", "shift")
    ),
    _case("negative singular values", (*DAMAGED, ">= 0"), singular_values=-S),
]

OTHER_LINEAR = [
    Case(
        "saved: a CLIP file where a projection is wanted",
        lambda folder: load_projection(builders.write(folder / NAME, builders.transformers_clip())),
        ("a projection file", NAME, "another kind", "SaveProjection", "LoadProjection"),
    ),
    Case(
        "saved: a LoRA where a projection is wanted",
        lambda folder: load_projection(
            builders.write(folder / NAME, {"lora_up": torch.ones(2)}, {"format": "pt"})
        ),
        ("a projection file", NAME, "another kind"),
    ),
]

CASES = [*METADATA, *VERSIONS, *ENCODERS, *TENSORS, *PARTS, *OTHER_LINEAR]
