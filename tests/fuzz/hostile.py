"""Hostile values, drawn from a `random.Random`: the same for the same seed."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import torch
from torch import Tensor

NAN, INF = float("nan"), float("inf")
NUMBERS = (
    *(0, 1, -1, 2, 3, 0.5, -0.0, 1.5, 77, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**400),
    *(-(10**400), 1e-320, 1e-30, 1e30, 1e39, 1e308, NAN, INF, -INF, True, False),
)
TEXTS = (
    *("", " ", "a dog", "\0", "\n", "\x1b[2J", "\udc80", "a\ud800b", "1, 2", "nan 1", "1e400, 1"),
    *(
        "x" * 5000,
        "☃" * 300,
        "(a:1.3)",
        "(((",
        "embedding:x",
        "../x",
        "a/./",
        "C:\\x",
        "nul",
        "%year%",
    ),
)
OTHERS = (None, b"bytes", [], {}, (), [[]], {"samples": 1}, object(), range(3), 1j, float)
PICTURE = torch.linspace(0, 1, 8 * 8 * 3).reshape(1, 8, 8, 3)


def number(random: Random) -> Any:
    return random.choice(NUMBERS) if random.random() < 0.7 else random.uniform(-1e3, 1e3)


def text(random: Random) -> str:
    if random.random() < 0.6:
        return random.choice(TEXTS)
    alphabet = "abC /\\.:%\0\x7f\udc80\ud83d雪,;()1"
    return "".join(random.choice(alphabet) for _ in range(random.randrange(12)))


def tensor(random: Random) -> Tensor:
    """A tensor of an odd shape, type, layout or content."""
    shape = random.choice(
        [(), (3,), (1, 8, 8, 3), (2, 9, 7, 1), (1, 8, 8, 4), (1, 0, 8, 3), (2, 32)]
    )
    if random.random() < 0.3:
        shape = tuple(random.randrange(5) for _ in range(random.randrange(6)))
    values = torch.rand(shape, generator=torch.Generator().manual_seed(random.randrange(2**31)))
    kind = random.choice(["plain", "plain", "type", "layout", "content", "scale"])
    if kind == "type":
        types = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)
        return values.to(random.choice((*types, torch.complex64, torch.float8_e4m3fn)))
    if kind == "layout":
        return _odd_layout(values, random.choice(["meta", "sparse", "quantised", "nested", "lazy"]))
    if kind == "content" and values.numel():
        values.view(-1)[random.randrange(values.numel())] = random.choice(
            [NAN, INF, -INF, 1e30, -3]
        )
    return values * random.choice([255.0, 1e38, -1.0, 0.0]) if kind == "scale" else values


def _odd_layout(values: Tensor, kind: str) -> Tensor:
    if kind == "meta":
        return values.to("meta")
    if kind == "sparse":
        return values.to_sparse() if values.ndim else values
    if kind == "quantised":
        return torch.quantize_per_tensor(values, 0.1, 0, torch.quint8)
    if kind == "nested":
        return torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)])
    return values.requires_grad_()


def anything(random: Random) -> Any:
    draw = random.choice([number, text, tensor, lambda r: r.choice(OTHERS)])
    return draw(random)


def json_value(random: Random, depth: int = 3) -> Any:
    """A value that JSON can hold."""
    draw = random.randrange(8 if depth else 5)
    if draw < 2:
        return random.choice([0, 1, -5, 1.5, 1e308, 1e-320, 10**400, NAN, INF, True])
    if draw < 4:
        return random.choice([None, "", "a", "bias", "residual", "x" * 999, "\udc80"])
    if draw == 4 or not depth:
        return random.choice([[], {}, [1], ["bias", "bias"]])
    parts = [json_value(random, depth - 1) for _ in range(random.randrange(4))]
    return parts if draw < 6 else {str(n): part for n, part in enumerate(parts)}


def json_text(random: Random) -> str:
    if random.random() < 0.15:
        return random.choice(["[" * 50_000, '{"a":' * 3000 + "1" + "}" * 3000, "9" * 6000, "{", ""])
    return json.dumps(json_value(random))


def damaged(random: Random, content: bytes) -> bytes:
    """A file's bytes, cut, lengthened, or with some of them changed."""
    kind = random.choice(["cut", "more", "flip", "header", "zero"])
    if kind == "cut":
        return content[: random.randrange(len(content))]
    if kind == "more":
        return content + bytes(random.randrange(1, 99))
    if kind == "zero":
        start = random.randrange(len(content))
        return content[:start] + bytes(len(content) - start)
    reach = min(len(content), 900) if kind == "header" else len(content)
    changed = bytearray(content)
    for _ in range(random.randrange(1, 9)):
        changed[random.randrange(reach)] = random.randrange(256)
    return bytes(changed)
