"""What the miniature draws, row by row, on held-out pairs of thing and ground.

    python tests miniature.drawings.evaluate --n 500

draws all rows from the same noise, 25 pictures at a time, and keeps what was measured of them in
build/drawings/evaluation, so that an interrupted run goes on; other weights have another folder.
Prints the table with 95 % intervals, the differences from the paper's row, the edits, and the
geometry of real embeddings where they lie beside the checkout. Needs npm for the drawings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from image_to_prompt.tests.geometry.data import GEOMETRY
from image_to_prompt.tests.source import ROOT

from . import editing, models
from .contact_sheet import save_sheet
from .measures import ERRORS, SHARES, Outcome, difference, joined, measured, scores, shown
from .rows import BEST, CAPTION, EOS, FITTED, PAPER, Cases, contexts
from .sampling import Miniature, noise_of
from .sources import BUILD
from .world import TRAINED, generator_of, sample

CHUNK = 25
SEEDS = {"test": 55, "train": 155}  # rows are chosen on known pairs, reported on held-out ones
RECONSTRUCTED = "reference through the autoencoder"


def folder_of(weights: Path) -> Path:
    """Where outcomes of these weights lie."""
    digest = hashlib.sha256()
    for part in ("clip", "taesd", "unet", "judge"):
        digest.update((weights / f"{part}.safetensors").read_bytes())
    return BUILD / "evaluation" / digest.hexdigest()[:12]


def chunk(
    mini: Miniature, judge: models.Judge, number: int, options: argparse.Namespace, folder: Path
) -> dict[str, Outcome]:
    """Outcomes of all rows on the pictures of one chunk, those of an earlier run included."""
    path = folder / f"{options.part}-{number:02}.pt"
    found = torch.load(path, weights_only=True) if path.exists() else {}
    seed = 1000 * SEEDS[options.part] + number
    case = Cases.of(mini, sample(CHUNK, options.part, generator_of(seed), TRAINED), seed)
    noise, sheet = noise_of(seed, CHUNK), [case.pictures]
    rows = {RECONSTRUCTED: None, **contexts(mini, case)}
    for name, context in rows.items():
        if name in found or (options.rows and not name.startswith(tuple(options.rows))):
            continue
        drawn = (
            mini.decode(mini.encode(case.pictures))
            if context is None
            else mini.draw(context(), noise)
        )
        found[name] = measured(drawn, case.scenes, judge)
        sheet.append(drawn)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(found, path)
    if number == 0 and len(sheet) > 1:
        save_sheet([row[:20] for row in sheet], folder / f"{options.part}.png")
    return found


def rows_of(mini: Miniature, judge: models.Judge, options: argparse.Namespace) -> dict:
    """Row name -> outcome over all pictures on which every printed row was drawn."""
    folder, parts = folder_of(options.weights), []
    for number in range(-(-options.n // CHUNK)):
        parts.append(chunk(mini, judge, number, options, folder))
        print(f"{(number + 1) * CHUNK} of {options.n} pictures", file=sys.stderr, flush=True)
    return {name: joined([part[name] for part in parts if name in part]) for name in parts[0]}


def print_table(found: dict[str, Outcome]) -> dict[str, dict]:
    """Print one line a row; the scores by row."""
    columns = (*SHARES, *ERRORS)
    print(f"{'row':36}{'n':>5}" + "".join(f"{name:>21}" for name in columns))
    table = {}
    for name, outcome in found.items():
        table[name] = scores(outcome)
        cells = [shown(table[name][c], 1 if c in ERRORS else 2) for c in columns]
        print(f"{name:36}{len(outcome['thing']):5}" + "".join(f"{cell:>21}" for cell in cells))
    return table


def print_differences(found: dict[str, Outcome], reference: str = PAPER) -> dict[str, dict]:
    """Print each row's share of right things minus the paper's on the same pictures."""
    if reference not in found:
        return {}
    print(f"\ndifference from {reference}, same pictures and noise, 95 %")
    table = {}
    for name, outcome in found.items():
        if name == reference or len(outcome["thing"]) > len(found[reference]["thing"]):
            continue
        count = len(outcome["thing"])
        table[name] = {
            column: difference(outcome[column], found[reference][column][:count])
            for column in ("thing", "judge", "ground")
        }
        cells = [f"{c} {shown(v, 3)}" for c, v in table[name].items()]
        print(f"{name:36}" + "  ".join(cells))
    return table


def print_gate(found: dict[str, Outcome]) -> None:
    """Print what captions must reach, and what the best closed form keeps of the bound."""
    rows = (CAPTION, EOS, BEST, FITTED)
    if not set(rows) <= set(found):
        return
    value = {
        (row, column): float(found[row][column].float().mean())
        for row in rows
        for column in ("thing", "judge", "ground")
    }
    print(
        f"\ncaptions: thing {value[CAPTION, 'thing']:.3f} (.80 asked), "
        f"ground {value[CAPTION, 'ground']:.3f} (.98 asked)"
    )
    for column in ("thing", "judge"):
        print(
            f"{column}: EOS in all slots over captions "
            f"{value[EOS, column] / value[CAPTION, column]:.3f} (.92 asked)"
            + "".join(
                f", {row} over EOS {value[row, column] / value[EOS, column]:.3f} (.92 asked)"
                for row in (BEST, FITTED)
            )
        )


def print_geometry() -> None:
    """The geometry of real embeddings, where their file lies beside the checkout."""
    if not GEOMETRY.exists():
        return
    print(flush=True)
    subprocess.run([sys.executable, str(ROOT / "tests"), "geometry"], check=True)


def main() -> None:
    """Draw what is missing and print all tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=500, help="pictures a row")
    parser.add_argument("--part", choices=tuple(SEEDS), default="test")
    parser.add_argument("--rows", nargs="*", help="the first letters of the rows to draw")
    parser.add_argument("--edits", type=int, help="pictures a point of the edits: n / 10")
    parser.add_argument("--no-geometry", action="store_true", help="the miniature's tables only")
    parser.add_argument("--weights", type=Path, default=models.WEIGHTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "evaluation.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.monotonic()
    mini, judge = Miniature.load(options.weights), models.load("judge", options.weights)
    found = rows_of(mini, judge, options)
    report: dict = {"pictures": options.n, "rows": print_table(found)}
    report["differences"] = print_differences(found)
    print_gate(found)
    edits = options.n // 10 if options.edits is None else options.edits
    report["editing"] = editing.table(mini, judge, edits) if edits else []
    if not options.no_geometry:
        print_geometry()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="ascii")
    print(f"\n{time.monotonic() - clock:.0f} s; written to {options.out}")


if __name__ == "__main__":
    main()
