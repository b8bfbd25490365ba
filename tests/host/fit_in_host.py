"""FitProjection on the widened miniature of shapes, in one real host, as a user's graph runs it.

    python tests host.fit_in_host --host <ComfyUI> --count 100 --n 300

The node is fitted to `count` pictures of the domain "corner" and told to keep as many of the old
world, as the evaluation does it; then n others of each are drawn by core's sampler, before and
after, from the same noise. Hours on two cores. The unfinished fit, the fit and what is judged lie
in build/fit_in_host, from where the next run goes on: delete it when what is measured has changed.
Run by the host's own Python.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from types import SimpleNamespace

from image_to_prompt.tests.host.in_process import make_importable
from image_to_prompt.tests.host.refine_in_host import drawn_by, loaded
from image_to_prompt.workflows.checkout import ROOT

AT_ONCE = 20  # pictures drawn


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--preset", default="transformer blocks")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fit_in_host")
    options = parser.parse_args()
    make_importable(options.host)
    from comfy.cli_args import args

    args.cpu = True
    import torch

    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        host = loaded(folder)
        measure(host, fitted(host, options), options)


def fitted(host: SimpleNamespace, options: argparse.Namespace):
    """The projection that the node fits, or has fitted in an earlier run."""
    import folder_paths

    from image_to_prompt.projection import load_projection, save_projection
    from image_to_prompt.tests.miniature.experiments.fit_domain import EPOCHS, PRIOR, SEED
    from image_to_prompt.tests.miniature.training.common import generator_of
    from image_to_prompt.tests.miniature.world.domains import sample_corner
    from image_to_prompt.tests.miniature.world.scenes import render, sample

    file = options.out / "fit.safetensors"
    if not file.exists():
        folder_paths.set_output_directory(str(options.out))  # where an unfinished fit is kept
        domain = render(sample_corner(options.count, "train", generator_of(SEED, 0)))
        world = render(sample(PRIOR, "train", generator_of(SEED, 3)))
        _, projection, _ = (
            host.classes["FitProjection"]
            .execute(
                image=singles(domain),
                regularization_image=singles(world),
                model=[host.model],
                vae=[host.vae],
                clip=[host.clip],
                clip_vision=[host.vision],
                projection=[host.projection],
                epochs=[EPOCHS],
                preset=[options.preset],
                learning_rate=[0.0],
                seed=[0],
                preview_every=[0],
            )
            .args
        )
        save_projection(projection, file)
    return load_projection(file)


def singles(pictures) -> list:
    """Core's list of (1, 64, 64, 3), with 256 levels as files hold them."""
    return list(((255 * pictures).round() / 255).movedim(1, -1).split(1))


def measure(host: SimpleNamespace, projection, options: argparse.Namespace) -> None:
    """Both rows: the domain with ratios to the closed form, then shares in the old world."""
    from image_to_prompt.tests.miniature.experiments.fit_common import measured, ratio, scores
    from image_to_prompt.tests.miniature.experiments.fit_domain import (
        ERRORS,
        SAME,
        SEED,
        implicit,
        show,
    )
    from image_to_prompt.tests.miniature.training.common import generator_of
    from image_to_prompt.tests.miniature.world.domains import sample_corner
    from image_to_prompt.tests.miniature.world.oracle import agreement, read
    from image_to_prompt.tests.miniature.world.scenes import render, sample

    truth = sample_corner(options.n, "test", generator_of(SEED, 1))
    world = sample(options.n, "test", generator_of(SEED, 2))
    domain, old = render(truth), render(world)
    apply = host.classes["ApplyProjection"].execute
    found = {}
    for name, chosen in (("closed", host.projection), ("fitted", projection)):
        model = apply(model=host.model, projection=chosen, strength=1.0).args[0]
        mine, theirs = (
            drawn(host, model, chosen, pictures, options.out / f"{name}-{kind}")
            for kind, pictures in (("domain", domain), ("old", old))
        )
        said = {k: v for k, v in agreement(read(mine), truth).items() if k in SAME}
        found[name] = implicit(mine, domain) | said, measured(theirs, old, world)
    plain = found["closed"][0]
    for name, (here, there) in found.items():
        print(show(name, here, plain, there))
    ratios = {e: ratio(found["fitted"][0][e], plain[e]) for e in ERRORS}
    shares = {k: v for k, v in scores(found["fitted"][1]).items() if k in SAME}
    for name, r in (ratios | shares).items():
        print(f"{name} {r['value']:.3f} [{r['low']:.3f}, {r['high']:.3f}]")


def drawn(host: SimpleNamespace, model, projection, pictures, folder: Path):
    """Each picture drawn again from its prompt, (N, 3, 64, 64); each part in a file."""
    import torch

    folder.mkdir(exist_ok=True)
    parts = []
    for seed, part in enumerate(pictures.split(AT_ONCE)):
        file = folder / f"{seed:03}-{len(part)}.pt"
        if not file.exists():
            image = (255 * part).round().movedim(1, -1) / 255
            torch.save(drawn_by(host, model, projection, image, "", 0.6, seed).clone(), file)
        parts.append(torch.load(file, weights_only=True))
    with torch.inference_mode(False):
        return torch.cat(parts).clone().movedim(-1, 1)


if __name__ == "__main__":
    main()
