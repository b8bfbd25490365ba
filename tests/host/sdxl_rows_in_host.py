"""More rows of the SDXL miniature's table, all in one real host.

    python tests host.sdxl_rows_in_host --host <ComfyUI> --n 50 --rows bound mean

The bound, the rules for the slots, ablations, controls and edits, on the pictures and with the
settings of `drawings_in_host.py --sdxl`, which draws captions and readings. Run by the Python that
`make test` made for the host in build/tests, which has diffusers; needs npm.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from image_to_prompt.tests.host.drawings_in_host import (
    embedded,
    loaded,
    measure,
    projection,
    remember_texts,
    sdxl_forms,
    together,
)
from image_to_prompt.tests.host.in_process import make_importable

EDITS = (("ground", 1.0), ("ground", 1.5), ("thing", 1.0), ("thing", 1.5))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--rows", nargs="*", help="the first letters of the rows to draw")
    options = parser.parse_args()
    make_importable(options.host)
    from comfy.cli_args import args

    args.cpu = True
    import torch

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        host = loaded(folder, sdxl=True)
        remember_texts(host.clip)
        [form] = sdxl_forms(host).values()
        measure(host, rows_of(host, form), options)


def rows_of(host: SimpleNamespace, form) -> dict[str, Callable]:
    """Row name -> conditioning of a case, with the scenes that it asks for in rows of edits."""
    without = replace(form.readings, centre=0 * form.readings.centre, pictures=0)
    plain, closed = replace(form, readings=without), projection(host)
    rows: dict[str, Callable] = {
        "bound": lambda case: bound(host, form, case),
        "no pictures": lambda case: embedded(host, plain, case.images),
        "clean pads": lambda case: embedded(host, form, case.images, pads="text encoder"),
        "EOS in all slots": lambda case: eos_in_all_slots(host, form, case),
        "cross-attention only": lambda case: mixed(host, form, case, states=True),
        "pooled only": lambda case: mixed(host, form, case, states=False),
        "27.5 in all of L's slots": lambda case: as_ported(host, closed, case),
        "mean state": lambda case: mean_state(host, form, case),
    }
    for kind, weight in EDITS:
        rows[f"{kind} {weight}"] = lambda case, k=kind, w=weight: edited(host, form, case, k, w)
    return rows


def placed(host: SimpleNamespace, form, states, pads: str = "picture") -> list:
    """The conditioning of text states (N, D) by the reading's name, in the empty prompt."""
    from image_to_prompt.nodes.families.embed import family_prompt

    return family_prompt(form.readings, host.clip, [states], "", [(0.0, 1.0)], "add", pads)


def eos_in_all_slots(host: SimpleNamespace, form, case: SimpleNamespace) -> list:
    """The EOS reading at the first EOS and after it."""
    from image_to_prompt.nodes.families.embed import family_embeds

    embeds = family_embeds(form, host.vision, case.images.split(1), "center")
    return placed(host, form, form.readings.apply(embeds), "EOS")


def bound(host: SimpleNamespace, form, case: SimpleNamespace) -> list:
    """The captions' own EOS states, the mean of their pads, and their pooled vectors."""
    import torch

    from image_to_prompt.nodes.host.families.clip import encode_family_text

    every: dict[str, list] = {name: [] for name in form.readings.readings}
    for caption in case.captions:
        [prompt] = encode_family_text(host.clip, caption, form.readings.family).prompts
        for key, states in prompt.states.items():
            [end] = prompt.eos[key]
            every[f"{key}.eos"].append(states[:, end])
            every[f"{key}.pad"].append(states[:, end + 1 :].mean(dim=1))
        every["pooled"].append(prompt.pooled)
    return placed(host, form, {name: torch.cat(rows) for name, rows in every.items()})


def mean_state(host: SimpleNamespace, form, case: SimpleNamespace) -> list:
    """The readings' offsets: what no picture says."""
    count = len(case.images)
    parts = form.readings.readings.items()
    return placed(host, form, {name: part.offset.expand(count, -1) for name, part in parts})


def mixed(host: SimpleNamespace, form, case: SimpleNamespace, *, states: bool) -> list:
    """The pictures' states with the empty prompt's pooled vector, or the other way round."""
    [[own, extras]] = embedded(host, form, case.images)
    [[empty, nothing]] = empty_prompt(host)
    pooled = nothing["pooled_output"].expand_as(extras["pooled_output"])
    if states:
        return [[own, {**extras, "pooled_output": pooled}]]
    return [[empty.repeat(len(own), 1, 1), extras]]


def as_ported(host: SimpleNamespace, closed, case: SimpleNamespace) -> list:
    """What ports of the SD 1.5 method do: L's closed form at length 27.5 in all its slots."""
    import torch

    from image_to_prompt.nodes.host.vision import image_embeddings

    pictures = list(case.images.split(1))
    embeds = torch.cat(list(image_embeddings(host.vision, pictures, "center", closed.vision)))
    [[empty, nothing]] = empty_prompt(host)
    states = empty.repeat(len(embeds), 1, 1)
    states[:, 1:, : closed.encoder.text_width] = closed.apply(embeds)[:, None]
    pooled = nothing["pooled_output"].expand(len(embeds), -1)
    return [[states, {**nothing, "pooled_output": pooled}]]


def empty_prompt(host: SimpleNamespace) -> list:
    """CLIP Text Encode's conditioning of the empty text."""
    import nodes

    return nodes.CLIPTextEncode().encode(host.clip, "")[0]


def edited(host: SimpleNamespace, form, case: SimpleNamespace, kind: str, weight: float) -> tuple:
    """Each picture edited by a text of its own, and the scenes as they should be then."""
    from image_to_prompt.tests.miniature.drawings.editing import changed

    texts, wanted = changed(case.scenes, kind)
    pairs = zip(case.images.split(1), texts, strict=True)
    return together([embedded(host, form, image, text, weight) for image, text in pairs]), wanted


if __name__ == "__main__":
    main()
