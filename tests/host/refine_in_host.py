"""OnlineRefine on the widened miniature of shapes, all in one real host, as a user's graph runs it.

    python tests host.refine_in_host --host <ComfyUI> --n 100

Each of n held-out pictures (the first ones of the evaluation's row `refined`) is refined on by the
node, and drawn and edited by core's sampler, before and after, from the same noise. About a minute
a picture on two cores. Each leaves a file in build/refine_in_host, so that the next run goes on
and runs beside each other share the work (`--first 0 --every 2`, `--first 1 --every 2`): delete the
folder when what is measured has changed. Run by the host's own Python.

The node keeps the say of phrases of this world, as in the evaluation: of its own, such as "a small
red chair", the miniature knows a word or two.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from types import SimpleNamespace

from image_to_prompt.tests.host.in_process import make_importable
from image_to_prompt.workflows.checkout import ROOT


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "refine_in_host")
    options = parser.parse_args()
    make_importable(options.host)
    from comfy.cli_args import args

    args.cpu = True
    import torch

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        measure(loaded(folder), options)


def loaded(folder: str) -> SimpleNamespace:
    """The miniature's files as core's loaders give them, and our nodes."""
    import folder_paths
    import torch

    import image_to_prompt
    import nodes
    from image_to_prompt.tests.miniature import models
    from image_to_prompt.tests.miniature.widening import widen

    with torch.inference_mode(False), torch.no_grad():
        widen.write(Path(folder), models=models)
    for kind in ("checkpoints", "clip_vision", "text_encoders"):
        folder_paths.add_model_folder_path(kind, folder)
    folder_paths.set_output_directory(folder)
    extension = asyncio.run(image_to_prompt.comfy_entrypoint())
    classes = {n.define_schema().node_id: n for n in asyncio.run(extension.get_node_list())}
    model, clip, vae = nodes.CheckpointLoaderSimple().load_checkpoint(widen.CHECKPOINT)
    [vision] = nodes.CLIPVisionLoader().load_clip(widen.CLIP)
    load = classes["LoadProjection"].execute
    projection = load(file=widen.CLIP, method="pseudo-inverse", cutoff=0.0).result[0]
    return SimpleNamespace(
        model=model, clip=clip, vae=vae, vision=vision, projection=projection, classes=classes
    )


def known_phrases() -> str:
    """One a line, as the evaluation has them, see `fit_common.Bench.texts`."""
    from image_to_prompt.tests.miniature.world.scenes import COLOURS, SHAPES

    return "\n".join(f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES)


def measure(host: SimpleNamespace, options: argparse.Namespace) -> None:
    """Both rows, picture by picture, and the table of what is there so far."""
    import torch

    from image_to_prompt.tests.miniature.experiments.fit_refine import SCENE_SEED, show
    from image_to_prompt.tests.miniature.training.common import generator_of
    from image_to_prompt.tests.miniature.world.scenes import Scenes, render, sample

    scenes = sample(100, "test", generator_of(SCENE_SEED, 0))
    options.out.mkdir(parents=True, exist_ok=True)
    for index in range(options.first, options.n, options.every):
        file = options.out / f"{index:03}.pt"
        if file.exists():
            continue
        scene = Scenes(**{name: value[index : index + 1] for name, value in vars(scenes).items()})
        picture = (255 * render(scene)).round() / 255  # as a file holds it
        torch.save([found(host, picture, scene, index, steps) for steps in (0, 30)], file)
        print(file, flush=True)
    done = [torch.load(file, weights_only=True) for file in sorted(options.out.glob("*.pt"))]
    print(f"{len(done)} pictures")
    plain, mine = (joined([pair[k] for pair in done]) for k in (0, 1))
    print(show("closed form", plain, plain))
    print(show("refined in the host", mine, plain))
    print(intervals(mine, plain))


def joined(parts: list) -> dict:
    import torch

    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def intervals(mine: dict, plain: dict) -> str:
    """Ratios of the errors with their 95 % intervals."""
    from image_to_prompt.tests.miniature.experiments.fit_refine import relative

    ratios = relative(mine, plain).items()
    return "  ".join(f"{n} {r['value']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for n, r in ratios)


def found(host: SimpleNamespace, picture, scene, index: int, steps: int) -> dict:
    """The picture refined on for so many steps, drawn and edited: measurements."""
    import torch

    from image_to_prompt.tests.miniature.experiments.editing import changed
    from image_to_prompt.tests.miniature.experiments.fit_common import EDITS
    from image_to_prompt.tests.miniature.experiments.fit_refine import found_of

    image = picture.movedim(1, -1)
    model, projection, _ = (
        host.classes["OnlineRefine"]
        .execute(
            model=host.model,
            vae=host.vae,
            clip=host.clip,
            clip_vision=host.vision,
            projection=host.projection,
            image=image,
            steps=steps,
            preset="transformer blocks",
            learning_rate=0.0,
            seed=0,
            preview_every=0,
            keep_texts=known_phrases(),
        )
        .args
    )
    drawn, targets = [drawn_by(host, model, projection, image, "", 0.6, index)], []
    for kind, weight in EDITS:
        [text], target = changed(scene, kind)
        drawn.append(drawn_by(host, model, projection, image, text, weight, index))
        targets.append(target)
    with torch.inference_mode(False):
        pictures = torch.cat(drawn).clone().movedim(-1, 1)
        return found_of(pictures, picture.clone(), scene, targets)


def drawn_by(host: SimpleNamespace, model, projection, image, text: str, weight: float, seed: int):
    """Pictures (N, 64, 64, 3) by core's sampler, as the evaluation draws: 12 steps, guidance 3."""
    import torch

    import nodes

    positive = (
        host.classes["ImageToPromptEmbed"]
        .execute(
            projection=projection,
            clip=host.clip,
            clip_vision=host.vision,
            image=image,
            text=text,
            text_weight=weight,
            strength=1.0,
            images="one prompt per image",
            crop="center",
        )
        .result[0]
    )
    [negative] = nodes.CLIPTextEncode().encode(host.clip, "")
    latent = {"samples": torch.zeros(len(image), 4, 8, 8)}
    [done] = nodes.common_ksampler(
        model, seed, 12, 3.0, "dpmpp_2m", "normal", positive, negative, latent
    )
    return nodes.VAEDecode().decode(host.vae, done)[0]


if __name__ == "__main__":
    main()
