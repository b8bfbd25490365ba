"""Malformed arguments to the public functions: weights, numbers, embeddings, texts."""

from __future__ import annotations

from collections.abc import Callable

import torch

from image_to_prompt.projection import (
    METHODS,
    ClipIdentity,
    Projection,
    assemble,
    condition,
    edit,
    first_eos,
    image_slots,
    invert,
    spherical_mean,
)
from image_to_prompt.projection.integrations.transformers_clip import text_states
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.malformed.case import Case

NAN, INF = float("nan"), float("inf")
W = builders.text_projection()
V = builders.normal(2, 32, seed=1)


def _case(name: str, says: tuple[str, ...], act: Callable[[], object]) -> Case:
    return Case(f"call: {name}", lambda _: act(), says)


def _made(**changes: object) -> Projection:
    good = builders.with_bias(builders.small_projection())
    parts = {name: getattr(good, name) for name in Projection.__dataclass_fields__}
    return Projection(**{**parts, **changes})


# --- methods and cutoffs ----------------------------------------------------------------------

NUMBERS = [
    *(
        _case(
            f"cutoff {cutoff} for {method}",
            ("a finite cutoff > 0", str(cutoff), "LoadProjection", "0 for automatic"),
            lambda m=method, c=cutoff: Projection.from_text_projection(W, method=m, cutoff=c),
        )
        for method in METHODS
        for cutoff in (-1.0, NAN, INF)
    ),
    _case(
        "a cutoff of 401 digits",
        ("a finite cutoff > 0", "digits"),
        lambda: Projection.from_text_projection(W, cutoff=10**400),
    ),
    *(
        _case(
            f"cutoff {cutoff} above every singular value",
            ("largest singular value (1.265)", "LoadProjection", "0 for automatic"),
            lambda c=cutoff: Projection.from_text_projection(W, cutoff=c),
        )
        for cutoff in (1.3, 10.0, 1e30)
    ),
    _case(
        "a ridge wider than numbers go",
        ("cutoff", "LoadProjection"),
        lambda: Projection.from_text_projection(W, method="ridge", cutoff=1e200),
    ),
    _case("a cutoff of 0 for invert", ("a finite cutoff > 0",), lambda: invert(W, "ridge", 0.0)),
    *(
        _case(
            f"the method {method!r}",
            ("pseudo-inverse, ridge, transpose", repr(method)),
            lambda m=method: Projection.from_text_projection(W, method=m),
        )
        for method in ("", "pinv", "Ridge", "none", "pseudo-inverse ")
    ),
    *(
        _case(f"a norm of {norm}", ("a finite norm > 0", str(norm)), lambda n=norm: _made(norm=n))
        for norm in (0.0, -27.5, NAN, INF, -INF)
    ),
    *(
        _case(f"{kept} directions kept", ("keeps something",), lambda k=kept: _made(kept=k))
        for kept in (0, -1, 33)
    ),
    *(
        _case(
            f"encoder widths {widths}",
            ("encoder widths >= 1",),
            lambda w=widths: ClipIdentity(*w, ""),
        )
        for widths in ((0, 1, 1), (1, -1, 1), (1, 1, -1), (1.5, 1, 1), ("1", 1, 1), (None, 1, 1))
    ),
]

# --- weights that are no text projection ------------------------------------------------------

PROJECTION = ("a trained CLIP text projection", "LoadProjection", "clip-vit-large-patch14")
WEIGHTS = [
    _case(
        f"projection of {name}",
        (*PROJECTION, got),
        lambda w=weight: Projection.from_text_projection(w),
    )
    for name, weight, got in (
        ("a vector", W[0], "(32,)"),
        ("nothing", torch.zeros(0, 0), "(0, 0)"),
        ("a batch of matrices", W[None], "(1, 32, 32)"),
        ("whole numbers", W.long(), "int64"),
        ("complex numbers", W.to(torch.complex64), "complex64"),
        ("NaN", W * NAN, "NaN"),
        ("infinite numbers", W * INF, "infinite"),
        ("zeros", W * 0, "only zeros"),
        ("an identity", torch.eye(32), "identity"),
        ("a rotation", builders.orthogonal(32, 3), "rotation"),
        ("noise", builders.normal(128, 128), "random numbers"),
        ("uniform noise", torch.rand(128, 128, generator=builders.generator(0)) - 0.5, "random"),
        ("a constant", torch.full((32, 32), 0.1), "rank 1"),
        ("eight-bit floats", W.to(torch.float8_e4m3fn), "float8_e4m3fn"),
        ("noise that is not square", builders.normal(256, 128), "random numbers"),
        ("noise of one sign", builders.normal(128, 128).abs() * 0.03, "random numbers"),
        ("a million times the size", W * 1e6, "wrong size"),
    )
]

# --- image embeddings -------------------------------------------------------------------------

SOCKETS = ("image embeddings (B, 32)", "socket clip_vision")
EMBEDS = [
    *(
        _case(
            f"image embeddings of shape {shape}",
            (*SOCKETS, str(shape)),
            lambda s=shape: builders.small_projection().apply(torch.ones(s)),
        )
        for shape in ((32,), (2, 31), (2, 33), (2, 768), (2, 1024), (1, 2, 32), (), (2, 0))
    ),
    *(
        _case(
            f"an image embedding of {what}",
            ("finite numbers that are not all zero", "socket image"),
            lambda r=row: builders.small_projection().apply(torch.stack([V[0], r])),
        )
        for what, row in (
            ("zeros", V[0] * 0),
            ("NaN", V[0] * NAN),
            ("infinite numbers", V[0] * INF),
            ("one NaN", torch.cat([V[0, 1:], torch.tensor([NAN])])),
            ("one infinite number", torch.cat([V[0, 1:], torch.tensor([INF])])),
        )
    ),
    _case(
        "an image embedding the projection maps to nothing",
        ("a projected image", "not all zero"),
        lambda: _made(matrix=torch.zeros(32, 32), bias=None).apply(V),
    ),
]

# --- several pictures -------------------------------------------------------------------------

FIT = ("2 finite weights >= 0, one per image, not all zero", "image_weights")
PICTURES = [
    *(
        _case(f"weights {weights}", (*FIT, str(weights)), lambda w=weights: spherical_mean(V, w))
        for weights in (
            [],
            [1.0],
            [1.0, 1.0, 1.0],
            [0.0, 0.0],
            [-1.0, 1.0],
            [1.0, -1e-9],
            [NAN, 1.0],
            [1.0, INF],
            [-INF, 1.0],
        )
    ),
    _case("weights too large to add", ("weights",), lambda: spherical_mean(V, [1e308, 1e308])),
    _case("no pictures", ("picture",), lambda: spherical_mean(V[:0])),
    _case("pictures of NaN", ("finite",), lambda: spherical_mean(V * NAN)),
    _case("a picture of zeros", ("zero",), lambda: spherical_mean(V * torch.tensor([[1.0], [0]]))),
    _case(
        "opposite pictures of other weights",
        ("opposite directions",),
        lambda: spherical_mean(torch.cat([V[:1], -V[:1]]), [0.6, 0.4]),
    ),
    _case(
        "opposite pictures",
        ("opposite directions", "one prompt per image"),
        lambda: spherical_mean(torch.cat([V, -V])),
    ),
    _case(
        "opposite pictures of equal weight among others left out",
        ("opposite directions", "one prompt per image"),
        lambda: spherical_mean(torch.cat([V, -V]), [1.0, 0.0, 1.0, 0.0]),
    ),
]

# --- texts ------------------------------------------------------------------------------------

TEXT = builders.normal(1, 77, 32, seed=2)
CLIP = ("SD 1.x checkpoint", "socket clip")


class _Chatty:
    """A tokenizer whose texts are too long."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [0, *[1] * (self.count - 2), 2]}


TEXTS = [
    *(
        _case(f"tokens {name}", ("ends in EOS (49407)", *CLIP), lambda t=tokens: first_eos(t))
        for name, tokens in (
            ("none", []),
            ("of one start", [49406]),
            ("without an end", [49406, 320, 1125]),
            ("with an end only at the start", [49407, 320]),
            ("of another tokenizer", [0, 100, 2, 1, 1]),
            ("as tensors only", [-1] * 77),
        )
    ),
    *(
        _case(
            f"EOS at {eos} in {chunks} chunks",
            ("an EOS in each", str(eos), *CLIP),
            lambda e=eos, c=chunks: image_slots(e, TEXT.repeat(1, c, 1)),
        )
        for eos, chunks in (
            ([], 1),
            ([0], 1),
            ([77], 1),
            ([-1], 1),
            ([3, 3], 1),
            ([3], 2),
            ([3, 0], 2),
            ([3, 4, 5], 2),
        )
    ),
    *(
        _case(
            f"{length} text states",
            ("77 slots a chunk", *CLIP),
            lambda n=length: edit(TEXT[:, :1].repeat(1, n, 1), [1], V, 0.6),
        )
        for length in (1, 76, 78, 90, 256)
    ),
    *(
        _case(
            f"a text encoder of width {width}",
            ("a text encoder of width 32", "sockets clip, projection"),
            lambda w=width: condition(torch.ones(1, 77, w), [3], V),
        )
        for width in (1, 31, 768, 2048)
    ),
    _case(
        "the blend 'mix'",
        ("add, keep length", "'mix'"),
        lambda: condition(TEXT, [3], V, 0.6, "mix"),
    ),
    *(
        _case(
            f"an edit of texts {width} wide",
            ("a text encoder of width 32",),
            lambda w=width: edit(torch.ones(1, 77, w), [3], V, 0.6),
        )
        for width in (1, 33)
    ),
    *(
        _case(
            f"a start state of shape {shape}",
            ("a SOS state of shape", str(shape)),
            lambda s=shape: assemble(torch.ones(s), V),
        )
        for shape in ((), (31,), (1, 32), (77, 32))
    ),
    *(
        _case(
            f"a text of {count} tokens without ComfyUI",
            ("at most 77 tokens", str(count), "Shorten"),
            lambda c=count: text_states(None, _Chatty(c), ""),
        )
        for count in (78, 500)
    ),
]

CASES = [*NUMBERS, *WEIGHTS, *EMBEDS, *PICTURES, *TEXTS]
