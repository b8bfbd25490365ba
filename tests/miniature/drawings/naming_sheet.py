"""Twenty drawings to name at a glance: python tests miniature.drawings.naming_sheet

Writes two sheets of two rows of ten into build/drawings/naming: captions.png, one thing each drawn
from its caption, and variations.png, each of those drawn again from its picture by the paper's
closed form. captions.txt says what was asked for; whoever names the drawings must not see it.
"""

from __future__ import annotations

import argparse

import torch

from .bench import Bench
from .captions import FULL, write
from .contact_sheet import save_sheet
from .sampling import Miniature, noise_of
from .sources import BUILD
from .world import COLOURS, THINGS, generator_of

COUNT, FOLDER, SCALE = 20, BUILD / "naming", 2


def main() -> None:
    """Draw and write both sheets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=2024)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench, generator = Bench.of(Miniature.load()), generator_of(options.seed)
    things = torch.randperm(len(THINGS), generator=generator)[:COUNT].tolist()
    grounds = torch.randint(len(COLOURS), (COUNT,), generator=generator).tolist()
    captions = [write(FULL[0], *facts) for facts in zip(things, grounds, strict=True)]
    states, _ = bench.mini.states(captions)
    drawn = bench.mini.draw(states, noise_of(options.seed, COUNT))
    seen = (255 * drawn).round() / 255  # as a file holds it
    prompts = bench.contexts(bench.closed, bench.mini.image_embeds(seen))
    again = bench.mini.draw(prompts, noise_of(options.seed + 1, COUNT))
    for name, pictures in (("captions", drawn), ("variations", again)):
        save_sheet(list(pictures.split(COUNT // 2)), FOLDER / f"{name}.png", SCALE)
    (FOLDER / "captions.txt").write_text("\n".join(captions) + "\n", encoding="ascii")
    print(FOLDER)


if __name__ == "__main__":
    main()
