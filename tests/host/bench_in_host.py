"""The measurements of `make bench`, inside one host. Prints one JSON line at the end."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from image_to_prompt.tests.host.in_process import make_importable
from image_to_prompt.workflows.checkout import ROOT

CLIP_FILE = "miniature-clip-vit-large-patch14.safetensors"
CHECKPOINT = "miniature-sd15.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--closed-form", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.closed_form:
        print(json.dumps(closed_form_cost(options.closed_form)))
        return
    make_importable(options.host)
    rows = closed_form_rows(options)
    rows |= host_rows(options.models, options.repeats)
    print(json.dumps(rows))


def row(values: list[float], goal: str) -> dict:
    return {
        "value": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "goal": goal,
    }


def in_turns(ours: Callable, theirs: Callable, repeats: int) -> list[float]:
    """Ratios ours / theirs of neighbouring runs, after one unmeasured run of each."""
    ours(), theirs()
    return [seconds(ours) / seconds(theirs) for _ in range(repeats)]


def seconds(action: Callable) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


# --- on the host -----------------------------------------------------------------------------


def host_rows(models: Path, repeats: int) -> dict:
    from comfy.cli_args import args

    args.cpu = True
    import comfy.clip_vision
    import comfy.sd
    import torch

    import image_to_prompt
    from image_to_prompt.projection import load_file

    asyncio.run(image_to_prompt.comfy_entrypoint())
    with torch.inference_mode():
        model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(models / CHECKPOINT))
        vision = comfy.clip_vision.load(str(models / CLIP_FILE))
        return prompt_rows(model, clip, vision, load_file(models / CLIP_FILE), repeats)


def prompt_rows(
    model, clip, vision, projection, repeats: int, steps: int = 8, side: int = 32, family: str = ""
) -> dict:
    """Encoding a picture and a text, and sampling `steps` on latents of a side with the result."""
    import torch

    import nodes as core

    embed = sys.modules["image_to_prompt.nodes.embed"].ImageToPromptEmbed
    picture = torch.rand(1, 256, 256, 3, generator=torch.Generator().manual_seed(0))
    text = "a red star on a blue ground"

    def ours():
        return embed.execute(
            projection, clip, vision, picture, text, 0.6, 1.0, "one prompt per image", "center"
        ).args[0]

    def theirs():
        vision.encode_image(picture)
        return core.CLIPTextEncode().encode(clip, text)[0]

    with torch.inference_mode():
        encoding = row(in_turns(ours, theirs, repeats), "<= 1.05")
        mine, negative = ours(), theirs()
        latent = {"samples": torch.zeros(1, 4, side, side)}

        def sample(positive):
            core.common_ksampler(
                model, 1, steps, 7.5, "euler", "normal", positive, negative, latent
            )

        ratios = in_turns(lambda: sample(mine), lambda: sample(negative), 2 * repeats)
    return {
        f"{family}ImageToPromptEmbed / (CLIPVisionEncode + CLIPTextEncode)": encoding,
        f"{family}sampling step: our CONDITIONING / a text prompt": row(ratios, "1.00 +- 0.02"),
    }


# --- closed form -----------------------------------------------------------------------------


def closed_form_rows(options: argparse.Namespace) -> dict:
    """Seconds and memory of the closed form of a CLIP file of 1.7 GB, in fresh processes."""
    with tempfile.TemporaryDirectory() as folder:
        big = Path(folder) / "big.safetensors"
        pad_to(options.models / CLIP_FILE, big, 1_710_000_000)
        command = [
            sys.executable,
            ROOT / "tests",
            "host.bench_in_host",
            "--host",
            options.host,
            "--models",
            options.models,
        ]
        costs = [
            json.loads(
                subprocess.run(
                    [*map(str, command), "--closed-form", str(big)],
                    check=True,
                    stdout=subprocess.PIPE,
                ).stdout
            )
            for _ in range(options.repeats)
        ]
    return {
        "closed form of a 1.7 GB CLIP file, seconds": row([c[0] for c in costs], "<= 1"),
        "closed form of a 1.7 GB CLIP file, MB of extra memory": row(
            [c[1] for c in costs], "<= 50"
        ),
    }


def closed_form_cost(path: Path) -> tuple[float, float]:
    """Seconds, and growth of the process's peak memory in MB."""
    import torch

    from image_to_prompt.projection import load_file

    torch.linalg.svd(torch.eye(8, dtype=torch.float64))  # loads the library outside the count
    before = peak_mb()
    taken = seconds(lambda: load_file(path))
    return taken, peak_mb() - before


def peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def pad_to(source: Path, target: Path, size: int) -> None:
    """A safetensors file with the same projections and, beside them, a hole up to `size`."""
    import torch
    from safetensors import safe_open

    with safe_open(source, "pt") as file:
        names = ("text_projection.weight", "visual_projection.weight")
        tensors = {name: file.get_tensor(name).float().contiguous() for name in names}
    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    filler = size - offset
    header["filler"] = {"dtype": "U8", "shape": [filler], "data_offsets": [offset, size]}
    encoded = json.dumps(header).encode()
    with target.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors.values():
            file.write(tensor.view(torch.uint8).numpy().tobytes())
        file.truncate(file.tell() + filler)


if __name__ == "__main__":
    main()
