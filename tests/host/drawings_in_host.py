"""Rows of the drawings' tables, all in one real host: core's loaders, our nodes, core's sampler.

    python tests host.drawings_in_host --host <ComfyUI> --n 50
    python tests host.drawings_in_host --host <ComfyUI> --n 50 --sdxl

The widened miniature of SD 1.5, or of SDXL, draws the first pictures of the evaluation's held-out
pairs from captions and from pictures. Prints the shares of right things and grounds with 95 %
intervals, to be laid beside the narrow models' tables: another noise, the same settings. Run by the
Python that `make test` made for the host in build/tests, which has diffusers; needs npm.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from image_to_prompt.tests.host.in_process import make_importable

AT_ONCE, STEPS, GUIDANCE, SEED = 10, 12, 3.0, 55
CAPTIONS, PICTURES = 300, 16  # of known pairs, behind the form that closes the gap


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--sdxl", action="store_true")
    parser.add_argument("--rows", nargs="*", help="the first letters of the rows to draw")
    options = parser.parse_args()
    make_importable(options.host)
    from comfy.cli_args import args

    args.cpu = True
    import torch

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        host = loaded(folder, options.sdxl)
        forms = sdxl_forms(host) if options.sdxl else sd15_forms(host)
        rows = {"caption": lambda case: by_captions(host, case)}
        for name, form in forms.items():
            rows[name] = lambda case, f=form: embedded(host, f, case.images)
        measure(host, rows, options)


def loaded(folder: str, sdxl: bool) -> SimpleNamespace:
    """The miniature's files as core's loaders give them, and our nodes."""
    import folder_paths
    import torch

    import image_to_prompt
    import nodes
    from image_to_prompt.tests.miniature.sdxl import widen as sdxl_widen
    from image_to_prompt.tests.miniature.widening import widen

    with torch.inference_mode(False), torch.no_grad():
        widen.write(Path(folder))
        checkpoint = sdxl_widen.write() if sdxl else Path(folder) / widen.CHECKPOINT
    for kind in ("checkpoints", "clip_vision", "text_encoders"):
        folder_paths.add_model_folder_path(kind, folder)
    folder_paths.add_model_folder_path("checkpoints", str(checkpoint.parent))
    extension = asyncio.run(image_to_prompt.comfy_entrypoint())
    classes = {n.define_schema().node_id: n for n in asyncio.run(extension.get_node_list())}
    model, clip, vae = nodes.CheckpointLoaderSimple().load_checkpoint(checkpoint.name)
    [vision] = nodes.CLIPVisionLoader().load_clip(widen.CLIP)
    return SimpleNamespace(
        model=model, clip=clip, vae=vae, vision=vision, classes=classes, file=widen.CLIP
    )


def remember_texts(clip) -> None:
    """Let a CLIP encode each text once: what it gives does not depend on the picture."""
    encode, known = clip.encode_from_tokens, {}

    def encoded(tokens, **options):
        key = repr((tokens, options))
        if key not in known:
            known[key] = encode(tokens, **options)
        return dict(known[key]) if isinstance(known[key], dict) else known[key]

    clip.encode_from_tokens = encoded


def projection(host: SimpleNamespace, **inputs):
    """Load Projection's output."""
    load = host.classes["LoadProjection"].execute
    return load(file=host.file, method="pseudo-inverse", cutoff=0.0, **inputs).args[0]


def known(pictures: int) -> dict:
    """Inputs of Load Projection: pictures (N, 96, 96, 3) and all captions of known pairs."""
    from image_to_prompt.tests.miniature.drawings.captions import all_captions
    from image_to_prompt.tests.miniature.drawings.rows import mean_pictures
    from image_to_prompt.tests.miniature.drawings.world import pairs

    shown = mean_pictures()[:pictures]
    captions = [text for pair in pairs("train") for text in all_captions(pair)]
    return {"image": shown.movedim(1, -1), "captions": captions}


def sd15_forms(host: SimpleNamespace) -> dict:
    """Row name -> projection: the paper's, and gap 0.5 with 16 pictures and 300 captions."""
    given = known(PICTURES)
    step = len(given["captions"]) // CAPTIONS
    given["captions"] = "\n".join(given["captions"][::step][:CAPTIONS])
    return {
        "closed form, the paper's": projection(host),
        "gap 0.5, 16 pictures": projection(
            host, clip=host.clip, clip_vision=host.vision, gap=0.5, **given
        ),
    }


def sdxl_forms(host: SimpleNamespace) -> dict:
    """Row name -> projection: readings of 523 known captions and no built-in ones, 32 pictures.

    Of the built-in captions the miniature's text encoders know a word or two.
    """
    from image_to_prompt.workflows.demo_parts.miniature import known_captions

    given = known(32) | {"clip": host.clip, "clip_vision": host.vision, "corpus_size": 0}
    given["captions"] = "\n".join(known_captions())
    return {"readings, 32 pictures": projection(host, **given)}


def measure(host: SimpleNamespace, rows: dict[str, Callable], options: argparse.Namespace) -> None:
    """Draw and print every row that the options name: conditioning from a case, by name.

    A row may give the scenes that it asks for as well, where they are not those of the pictures.
    """
    import torch

    from image_to_prompt.tests.miniature.drawings.measures import joined, measured, shown
    from image_to_prompt.tests.miniature.drawings.models import load
    from image_to_prompt.tests.miniature.experiments.scores import share

    cases, judge = cases_of(options.n), load("judge")
    for name, prompts in rows.items():
        if options.rows and not name.startswith(tuple(options.rows)):
            continue
        found = []
        for number, case in enumerate(cases):
            made = prompts(case)
            prompt, wanted = made if isinstance(made, tuple) else (made, case.scenes)
            drawn = sampled(host, prompt, len(case.captions), SEED + number)
            with torch.inference_mode(False):
                found.append(measured(drawn.clone().movedim(-1, 1), wanted, judge))
            so_far = joined(found)
            shares = {c: shown(share(so_far[c])) for c in ("thing", "judge", "ground")}
            cells = " ".join(f"{c} {value}" for c, value in shares.items())
            print(f"{name}, {len(so_far['thing'])} pictures: {cells}", flush=True)


def cases_of(count: int) -> list:
    """The evaluation's first held-out pictures, AT_ONCE in each, with a caption a picture."""
    from image_to_prompt.tests.miniature.drawings.evaluate import CHUNK, SEEDS
    from image_to_prompt.tests.miniature.drawings.rows import captions_of
    from image_to_prompt.tests.miniature.drawings.world import (
        TRAINED,
        generator_of,
        render,
        sample,
    )

    cases = []
    for number in range(-(-count // CHUNK)):  # in chunks of the evaluation's, of a seed each
        seed = 1000 * SEEDS["test"] + number
        scenes = sample(CHUNK, "test", generator_of(seed), TRAINED)
        pictures, captions = render(scenes), captions_of(scenes, seed)
        for first in range(0, CHUNK, AT_ONCE):
            part = slice(first, first + AT_ONCE)
            cases.append(SimpleNamespace(scenes=scenes[part], captions=captions[part],
                                         images=pictures[part].movedim(1, -1)))  # fmt: skip
    return cases


def by_captions(host: SimpleNamespace, case: SimpleNamespace) -> list:
    """CLIP Text Encode's conditioning of one caption a picture, as one batch."""
    import nodes

    return together([nodes.CLIPTextEncode().encode(host.clip, text)[0] for text in case.captions])


def together(prompts: list) -> list:
    """Conditionings of one entry each as one batch."""
    import torch

    entries = [entry for [entry] in prompts]
    extras = {}
    if entries[0][1].get("pooled_output") is not None:
        extras["pooled_output"] = torch.cat([extra["pooled_output"] for _, extra in entries])
    return [[torch.cat([states for states, _ in entries]), extras]]


def embedded(
    host: SimpleNamespace, form, images, text: str = "", text_weight: float = 0.6, **options
) -> list:
    """Image To Prompt Embed's conditioning of pictures and a text."""
    [found] = (
        host.classes["ImageToPromptEmbed"]
        .execute(
            projection=form, clip=host.clip, clip_vision=host.vision, image=images, text=text,
            text_weight=text_weight, strength=1.0, images="one prompt per image", crop="center",
            **options,
        )
        .args
    )  # fmt: skip
    return found


def sampled(host: SimpleNamespace, positive: list, count: int, seed: int):
    """Pictures (N, 96, 96, 3) by core's sampler and decoder, as the evaluation draws."""
    import torch

    import nodes

    [negative] = nodes.CLIPTextEncode().encode(host.clip, "")
    latent = {"samples": torch.zeros(count, 4, 12, 12)}
    [done] = nodes.common_ksampler(
        host.model, seed, STEPS, GUIDANCE, "dpmpp_2m", "normal", positive, negative, latent
    )
    return nodes.VAEDecode().decode(host.vae, done)[0]


if __name__ == "__main__":
    main()
