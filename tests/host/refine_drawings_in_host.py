"""Online Refine on the drawings, all in one real host, as a user's graph runs it.

    python tests host.refine_drawings_in_host --host <ComfyUI> --n 50
    python tests host.refine_drawings_in_host --host <ComfyUI> --n 50 --sdxl

The first references of the narrow models' table, refined on by the node for 30 steps on the widened
miniature of SD 1.5, or of SDXL, then drawn and edited by core's sampler, before and after, from the
same noise. Each reference leaves a file in build/, so that the next run goes on; runs beside each
other share the work by `--first` and `--every`. Run by the Python that `make test` made for the
host in build/tests, which has diffusers; needs npm.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from types import SimpleNamespace

from image_to_prompt.tests.host.drawings_in_host import (
    embedded,
    loaded,
    projection,
    remember_texts,
    sampled,
    sdxl_forms,
    together,
)
from image_to_prompt.tests.host.in_process import make_importable
from image_to_prompt.workflows.checkout import ROOT

TEXT_WEIGHT = 0.6  # of no text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--n", type=int, default=20, help="references")
    parser.add_argument("--sdxl", action="store_true")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    make_importable(options.host)
    from comfy.cli_args import args

    args.cpu = True
    import torch

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        host = loaded(folder, options.sdxl)
        remember_texts(host.clip)
        plain = next(iter(sdxl_forms(host).values())) if options.sdxl else projection(host)
        measure(host, plain, options)


def measure(host: SimpleNamespace, plain, options: argparse.Namespace) -> None:
    """Every reference that has no file yet, and the table of all that have one."""
    import torch

    from image_to_prompt.tests.miniature.drawings import refine as sd15
    from image_to_prompt.tests.miniature.drawings.models import load
    from image_to_prompt.tests.miniature.drawings.world import TRAINED, generator_of, sample
    from image_to_prompt.tests.miniature.sdxl import refine as sdxl

    seed = (sdxl if options.sdxl else sd15).SEED
    scenes, judge = sample(100, "test", generator_of(seed), TRAINED), load("judge")
    out = ROOT / "build" / f"refine_drawings_in_host{'_sdxl' * options.sdxl}"
    out.mkdir(parents=True, exist_ok=True)
    for index in range(options.first, options.n, options.every):
        file = out / f"{index:03}.pt"
        if not file.exists():
            torch.save(rows_of(host, plain, scenes[index : index + 1], index, judge), file)
            print(file.name, flush=True)
    found = [torch.load(file, weights_only=True) for file in sorted(out.glob("*.pt"))]
    sd15.print_table(found[: options.n])


def rows_of(host: SimpleNamespace, plain, scene, index: int, judge) -> dict:
    """Row name -> measurements of one reference, without and with the node's training."""
    import torch

    from image_to_prompt.tests.miniature.drawings.editing import changed
    from image_to_prompt.tests.miniature.drawings.refine import EDITS, REFINED, STEPS, found_of
    from image_to_prompt.tests.miniature.drawings.world import render

    with torch.inference_mode(False):
        picture = (255 * render(scene)).round() / 255  # as a file holds it
        edits = [changed(scene, kind, index) for kind, _ in EDITS]
    image, targets = picture.movedim(1, -1), [target for _, target in edits]
    texts = [("", TEXT_WEIGHT)]
    texts += [(text, weight) for ([text], _), (_, weight) in zip(edits, EDITS, strict=True)]
    rows = {}
    for name, steps in (("not refined", 0), (REFINED, STEPS)):
        trained = refined(host, plain, image, steps)
        prompt = together([embedded(host, trained.projection, image, *text) for text in texts])
        drawn = sampled(trained, prompt, len(texts), index)
        with torch.inference_mode(False):
            pictures = drawn.clone().movedim(-1, 1)
            rows[name] = found_of(pictures, picture, scene, targets, judge)
    return rows


def refined(host: SimpleNamespace, plain, image, steps: int) -> SimpleNamespace:
    """The host with the MODEL and the projection that Online Refine gives."""
    from image_to_prompt.tests.miniature.drawings.bench import edit_texts
    from image_to_prompt.tests.miniature.drawings.refine import REFINE

    model, trained, _ = (
        host.classes["OnlineRefine"]
        .execute(
            model=host.model, vae=host.vae, clip=host.clip, clip_vision=host.vision,
            projection=plain, image=image, steps=steps, preset=next(iter(REFINE)),
            learning_rate=0.0, seed=0, preview_every=0, keep_texts="\n".join(edit_texts()),
        )
        .args
    )  # fmt: skip
    return SimpleNamespace(**{**vars(host), "model": model, "projection": trained})


if __name__ == "__main__":
    main()
