"""FitProjection on the miniature: python tests miniature.experiments.fit_domain --n 300

The projection is fitted to pictures of a domain that nothing was trained on, and judged on others
of it: what no caption says (where, how large, which pixels), beside the closed form. The old
world is drawn too, to see that nothing is lost there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from image_to_prompt.projection import (
    FIT,
    TEXT_ONLY,
    Projection,
    Trainer,
    TrainingConfig,
    TrainingImages,
    fit,
    fit_from_text,
)
from image_to_prompt.tests.miniature import models
from image_to_prompt.tests.miniature.experiments.fit_common import Bench, measured, ratio, scores
from image_to_prompt.tests.miniature.experiments.rows import corpus
from image_to_prompt.tests.miniature.sampling import Miniature, noise_of
from image_to_prompt.tests.miniature.training.common import generator_of
from image_to_prompt.tests.miniature.world.domains import (
    render_outlines,
    render_pairs,
    sample_corner,
    sample_outlines,
    sample_pairs,
)
from image_to_prompt.tests.miniature.world.oracle import agreement, read
from image_to_prompt.tests.miniature.world.scenes import SIDE, render, sample
from image_to_prompt.workflows.checkout import ROOT

# Each gives n pictures to fit on ("train") or to be judged on ("test").
DOMAINS = {
    "corner": lambda n, part, g: render(sample_corner(n, part, g)),
    "outlines": lambda n, part, g: render_outlines(sample_outlines(n, g)),
    "pairs": lambda n, part, g: render_pairs(sample_pairs(n, g)),
}
SEED, NOISE_SEED, HELD_OUT = 41, 42, 0.1
PRIOR = 100  # pictures of the world that are to stay as they are drawn
EPOCHS = 30
ERRORS = ("pixel_error", "position_error", "size_error")
SAME = ("shape", "figure_colour", "ground_colour")
Found = dict[str, Tensor]


def fitted(
    bench: Bench, pictures: Tensor, settings: TrainingConfig | None, epochs: int = EPOCHS
) -> Projection:
    """A projection fitted to pictures (N, 3, 64, 64); settings None: from text, no gradient."""
    seen = bench.pictures(
        pictures, pixels=settings is not None and settings.deep_prompts is not None
    )
    if settings is None:
        text = bench.mini.clip.text_projection.weight
        return fit_from_text(bench.closed, corpus(bench.mini), seen.embeds, text)
    held = max(1, round(HELD_OUT * len(seen)))
    train, held_out = _part(seen, slice(held, None)), _part(seen, slice(0, held))
    steps = epochs * -(-len(train) // settings.batch_size)
    trainer = Trainer(
        bench.denoiser,
        bench.closed,
        train,
        bench.null,
        settings,
        0,
        held_out,
        bench.tower,
        schedule_steps=steps,
        prompts=bench.texts(),
        prior=_prior(bench, settings),
    )
    for _ in fit(trainer, epochs):
        pass
    return trainer.result()


def _prior(bench: Bench, settings: TrainingConfig) -> TrainingImages:
    """Pictures of the world, none of them among those that the old world is judged on."""
    pictures = render(sample(PRIOR, "train", generator_of(SEED, 3)))
    return bench.pictures(pictures, pixels=settings.deep_prompts is not None)


def _part(seen: TrainingImages, part: slice) -> TrainingImages:
    pixels = None if seen.pixels is None else seen.pixels[part]
    return TrainingImages(seen.latents[part], seen.embeds[part], pixels)


def implicit(pictures: Tensor, reference: Tensor) -> Found:
    """Errors (N,) of what no caption says: pixels, and where and how large the figures are."""
    mine, theirs = (_place(some) for some in (pictures, reference))
    return {
        "pixel_error": (pictures - reference).abs().flatten(1).mean(dim=1),
        "position_error": (mine[:, :2] - theirs[:, :2]).norm(dim=1),
        "size_error": (mine[:, 2] - theirs[:, 2]).abs(),
    }


def _place(pictures: Tensor) -> Tensor:
    """Centre x, y and spread (N, 3), in pixels, of what differs from the ground.

    The ground is a straight line in y through the borders, so that a fade counts as ground.
    """
    edge = torch.cat([pictures[..., :2], pictures[..., -2:]], dim=-1).mean(dim=-1)  # (N, 3, 64)
    t = (torch.arange(SIDE) + 0.5) / SIDE
    basis = torch.stack([1 - t, t], dim=-1)
    ground = edge @ (basis @ torch.linalg.pinv(basis)).T
    distance = (pictures - ground[..., None]).norm(dim=1)
    solid = (distance / distance.amax(dim=(1, 2), keepdim=True).clamp(min=0.2) - 0.4).clamp(min=0)
    weight = solid / solid.sum(dim=(1, 2), keepdim=True).clamp(min=1e-3)
    axis = torch.arange(SIDE) + 0.5
    x, y = (weight.sum(1) * axis).sum(1), (weight.sum(2) * axis).sum(1)
    dx, dy = axis - x[:, None], axis - y[:, None]  # (N, 64)
    square = dx[:, None].square() + dy[:, :, None].square()
    return torch.stack([x, y, (weight * square).sum(dim=(1, 2)).sqrt()], dim=1)


def drawn(bench: Bench, projection: Projection, pictures: Tensor) -> Tensor:
    """Each picture drawn again from its prompt, (N, 3, 64, 64)."""
    embeds = _embeds(bench, projection, pictures)
    context = bench.contexts(projection, embeds)
    return bench.draw(projection, context, noise_of(NOISE_SEED, len(pictures)))


@torch.no_grad()
def _embeds(bench: Bench, projection: Projection, pictures: Tensor) -> Tensor:
    from image_to_prompt.projection import encode_pictures
    from image_to_prompt.tests.miniature.world.preprocess import preprocess

    if projection.vision is None:
        return bench.mini.image_embeds(pictures)
    parts = [
        encode_pictures(bench.tower, preprocess(part), projection.vision)
        for part in pictures.split(50)
    ]
    return torch.cat(parts)


def judge(bench: Bench, projection: Projection, domain: str, n: int) -> tuple[Found, Found]:
    """Measurements on n other pictures of the domain, and on n of the old world."""
    pictures = DOMAINS[domain](n, "test", generator_of(SEED, 1))
    world = sample(n, "test", generator_of(SEED, 2))
    old = render(world)
    mine = drawn(bench, projection, pictures)
    found = implicit(mine, pictures)
    if domain == "corner":  # the oracle reads these: what a caption says must not suffer
        truth = sample_corner(n, "test", generator_of(SEED, 1))
        found |= {name: agreement(read(mine), truth)[name] for name in SAME}
    return found, measured(drawn(bench, projection, old), old, world)


def rows(
    n: int,
    mini: Miniature | None = None,
    counts: tuple[int, ...] = (100,),
    report: Callable[[str], None] = print,
) -> dict:
    """Row name -> scores, with `relative_<error>` to the closed form and `old_<share>`."""
    bench, table = Bench.of(mini or Miniature.load()), {}
    presets = {TEXT_ONLY: None, **FIT}
    for domain, draw in DOMAINS.items():
        plain, old_plain = judge(bench, bench.closed, domain, n)
        table[f"closed_form_{domain}"] = scores(plain) | _old(old_plain)
        report(show(f"closed form, {domain}", plain, plain, old_plain))
        for name, settings in presets.items():
            for count in counts:
                pictures = draw(count, "train", generator_of(SEED, 0))
                found, old = judge(bench, fitted(bench, pictures, settings), domain, n)
                label = "fitted" if name == next(iter(FIT)) else f"fitted ({name})"
                title = f"{label}, {domain}, {count}"
                relative = {f"relative_{e}": ratio(found[e], plain[e]) for e in ERRORS}
                table[title] = scores(found) | relative | _old(old)
                report(show(title, found, plain, old))
    return table


def _old(found: Found) -> dict[str, dict]:
    return {f"old_{name}": value for name, value in scores(found).items()}


def show(title: str, found: Found, plain: Found, old: Found) -> str:
    """One line: ratios to the closed form, then shares in the old world."""
    parts = [f"{name[:5]} {ratio(found[name], plain[name])['value']:.2f}" for name in ERRORS]
    parts += [f"{name} {found[name].float().mean():.3f}" for name in SAME if name in found]
    parts += [f"old {name} {old[name].float().mean():.3f}" for name in SAME]
    return f"{title:54}" + "  ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--counts", type=int, nargs="*", default=[100])
    parser.add_argument("--weights", type=Path, default=models.WEIGHTS)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fit.json")
    options = parser.parse_args()
    clock = time.monotonic()
    table = rows(options.n, Miniature.load(options.weights), tuple(options.counts))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(table, indent=1) + "\n", encoding="ascii")
    print(f"{time.monotonic() - clock:.0f} s; written to {options.out}")


if __name__ == "__main__":
    main()
