"""What a training step costs beside a bare one and the host's own LoRA training, in one host.

    python tests host.bench_training --host <ComfyUI>

Prints one JSON line at the end. Speed does not depend on what the weights say: they are random.
Gradient checkpointing is off on both sides, and everything is trained in float32. Times are the
process's own, so that a busy machine does not change them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from image_to_prompt.tests.host import bench_in_host
from image_to_prompt.tests.host.in_process import make_importable
from image_to_prompt.workflows.checkout import ROOT

SIDE, BATCH = 16, 16  # of latents; noisy pictures in a step
STEPS, WARM = 30, 9  # of a refinement; until it has listened and knows what it shall keep
LORA_WIDGETS = {
    "batch_size": 1,
    "grad_accumulation_steps": 1,
    "learning_rate": 5e-4,
    "rank": 8,
    "optimizer": "AdamW",
    "loss_function": "MSE",
    "seed": 0,
    "training_dtype": "fp32",
    "lora_dtype": "fp32",
    "algorithm": "LoRA",
    "gradient_checkpointing": False,
    "existing_lora": "[None]",
}
# Those that hosts have which write their nodes with a schema.
NEWER_LORA_WIDGETS = {
    "quantized_backward": False,
    "checkpoint_depth": 1,
    "offloading": False,
    "bucket_mode": False,
    "bypass_mode": False,
}
OURS, THEIRS = "ours", "the host's"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument(
        "--models", type=Path, help="not used: for one command line with the others"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", choices=(OURS, THEIRS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    make_importable(options.host)
    from comfy.cli_args import args

    args.cpu = True
    if options.memory:
        print(memory_of(options.memory))
        return
    rows = step_rows(options.repeats) | generation_rows(options.repeats)
    print(json.dumps(rows | memory_rows(options)))


def seconds(action: Callable) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def step_rows(repeats: int) -> dict:
    ours, bare = our_step(BATCH), bare_step(BATCH)
    run = [refinement() / seconds(lambda: [bare() for _ in range(STEPS)])]  # long, so once
    for _ in range(WARM):
        ours()
    bare()
    step = [seconds(ours) / seconds(bare) for _ in range(repeats)]
    # The host runs each prompt on the whole batch, so that only one picture compares alike.
    single, lora = our_step(1), host_lora_steps()
    ratios = []
    for _ in range(repeats):
        few, many = (seconds(lambda n=n: lora(n)) for n in (1, 4))
        alone = seconds(lambda: [single() for _ in range(3)])
        ratios.append(alone / (many - few))
    return {
        f"training step of {BATCH} / bare forward and backward": bench_in_host.row(step, "<= 1.15"),
        f"{STEPS} steps and all before them / as many bare": bench_in_host.row(run, "none"),
        "training step of 1 / the host's LoRA training": bench_in_host.row(ratios, "<= 0.80"),
    }


def refinement() -> float:
    """A whole refinement, with where it listens and what the model says of kept texts."""
    trainer = trainer_of(BATCH)
    return seconds(lambda: [trainer.step() for _ in range(STEPS)])


def generation_rows(repeats: int) -> dict:
    """A sampling step with the model and prompt of a refinement, and without both."""
    import torch

    import nodes as core
    from image_to_prompt.nodes.host.model.patches import patch_model

    trainer = trainer_of(1)
    trainer.step()
    model = small_model()
    patched = patch_model(model, trainer.result().cross_attention, 1.0)
    latent = {"samples": torch.zeros(1, 4, SIDE, SIDE)}
    prompt = [[torch.randn(1, 77, 768), {}]]

    def sample(which):
        with torch.inference_mode():
            core.common_ksampler(which, 1, 4, 7.5, "euler", "normal", prompt, prompt, latent)

    # Each side's patches are put on before its clock starts.
    ratios = []
    for _ in range(repeats):
        taken = []
        for which in (patched, model):
            sample(which)
            taken.append(seconds(lambda which=which: sample(which)))
        ratios.append(taken[0] / taken[1])
    return {"sampling step: refined model / plain model": bench_in_host.row(ratios, "1.00 +- 0.02")}


# --- the sides --------------------------------------------------------------------------------


def small_model():
    import torch

    import image_to_prompt.tests.host.small_unet as small_unet

    return small_unet.host_model(small_unet.unet_state(small_unet.SMALL, torch.float32))


def trainer_of(batch: int):
    """The default preset with so many noisy pictures a step; a single one keeps no text."""
    from dataclasses import replace

    import torch

    from image_to_prompt.nodes.host.unet import HostDenoiser
    from image_to_prompt.projection import (
        REFINE,
        ClipIdentity,
        EncodedPrompts,
        Projection,
        Trainer,
        TrainingImages,
    )

    projection = Projection(
        torch.eye(768),
        torch.ones(768),
        ClipIdentity(768, 768, 1024, "0" * 64),
        "pseudo-inverse",
        0.3,
        768,
    )
    config = next(iter(REFINE.values()))
    pairs = config.preservation.preserve_pairs
    pairs = pairs if batch > pairs else 0
    config = replace(
        config,
        noise=replace(config.noise, timesteps_per_image=batch - pairs),
        preservation=replace(config.preservation, preserve_pairs=pairs),
    )
    pictures = TrainingImages((torch.randn(4, SIDE, SIDE),), torch.randn(1, 768))
    null = torch.randn(1, 77, 768)
    prompts = EncodedPrompts(torch.randn(8, 77, 768), (5,) * 8)
    denoiser = HostDenoiser(small_model(), 768)
    return Trainer(denoiser, projection, pictures, null, config, 0, prompts=prompts)


def our_step(batch: int):
    return trainer_of(batch).step


def bare_step(batch: int):
    """One forward and backward of the same U-Net to its context, in plain torch."""
    import torch

    import image_to_prompt.tests.host.small_unet as small_unet

    state = small_unet.unet_state(small_unet.SMALL, torch.float32)
    unet = small_unet.host_model(state, inference=False).model.diffusion_model
    unet.requires_grad_(False)
    noisy, times = torch.randn(batch, 4, SIDE, SIDE), torch.full((batch,), 500.0)

    def step():
        context = torch.randn(batch, 77, 768, requires_grad=True)
        unet(noisy, times, context=context).square().mean().backward()

    return step


def host_lora_steps():
    """Steps of the host's LoRA training, as its node takes them."""
    import torch
    from comfy_extras.nodes_train import TrainLoraNode

    model = small_model()
    if hasattr(model, "cached_patcher_init"):  # newer hosts train a copy that they load anew
        model.cached_patcher_init = (lambda **_: small_model(), ())
    latents = {"samples": torch.randn(1, 4, SIDE, SIDE)}
    prompt = [[torch.randn(1, 77, 768), {}]]

    def steps(count: int):
        given = {
            "model": model,
            "latents": latents,
            "positive": prompt,
            "steps": count,
            **LORA_WIDGETS,
        }
        with torch.inference_mode():
            if hasattr(TrainLoraNode, "execute"):
                TrainLoraNode.execute(
                    **{k: [v] for k, v in {**given, **NEWER_LORA_WIDGETS}.items()}
                )
            else:
                TrainLoraNode().train(**given)

    return steps


# --- memory -----------------------------------------------------------------------------------


def memory_rows(options: argparse.Namespace) -> dict:
    """Growth of a fresh process's peak memory over two steps of one picture."""
    ratios = []
    for _ in range(min(3, options.repeats)):
        grown = []
        for side in (OURS, THEIRS):
            command = [
                sys.executable,
                ROOT / "tests",
                "host.bench_training",
                "--host",
                str(options.host),
                "--memory",
                side,
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            grown.append(float(done.stdout.splitlines()[-1]))
        ratios.append(grown[0] / grown[1])
    name = "peak memory of training / of the host's LoRA training"
    return {name: bench_in_host.row(ratios, "<= 1.00")}


def resident_mb() -> float:
    import psutil  # one of the host's requirements

    return psutil.Process().memory_info().rss / 2**20


def memory_of(side: str) -> float:
    """Peak memory of two steps in MB, beyond what the process had before."""
    step = our_step(1) if side == OURS else host_lora_steps()
    before = resident_mb()
    peak, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak.append(resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    step(2) if side == THEIRS else (step(), step())
    done.set()
    watcher.join()
    return max(peak) - before


if __name__ == "__main__":
    main()
