"""Prints the real geometry of closed forms: python tests geometry [--data FILE]

Rows are forms from a picture's embedding to a prompt embedding, judged on photos that have a
class among real EOS states. Cosines alone judge nothing: the control row holds no picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .data import GEOMETRY, POOLS, World, load, mean_and_spread
from .forms import A, B, rows
from .scores import Row, among, cosines, hits, interval, score

HEAD = (
    "top-1 (95 %: photos; class sets)     draws: least  sd |  plain  ade  nyu | deviations means"
    " right other among identity length mean:offset"
)
# Least top-1, and the ranges of the cosines to other classes and among results.
LIMITS = {A: (0.73, (-1.0, 1.0), (-1.0, 0.61)), B: (0.77, (0.36, 0.56), (0.36, 0.56))}
IDENTITY = 0.98
PAIRS = ((A, "paper, cutoff .3"), (B, "paper, cutoff .3"), (B, A))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=GEOMETRY, help="geometry file")
    torch.set_num_threads(1)
    world = load(parser.parse_args().data)
    print_world(world)
    found = {}
    print(f"\n{'':36}{HEAD}")
    for name, forms in rows(world).items():
        found[name] = score(world, forms)
        few = forms[:4]
        pools = [score(world, few, pool).top1 for pool in POOLS[1:]]
        print(f"{name:36}{described(found[name], world, pools)}", flush=True)
    print_pairs(found)
    print_limits(found)


def print_world(world: World) -> None:
    """What the file holds, and the bound in the joint space."""
    k = world.judged
    joint = hits(cosines(world.photos[k], world.classes @ world.text.T), world.own[k])
    mean, spread = mean_and_spread(world.classes)
    print(
        f"{len(world.photos)} photos, {len(k)} of them with a class "
        f"({int(world.groups.max()) + 1} sets of classes); joint space top-1 {joint.mean():.3f}"
    )
    print(
        f"{len(world.classes)} EOS states: length {world.classes.norm(dim=-1).mean():.2f}, mean "
        f"state {mean.norm():.2f} long, spread {spread:.2f}, {among(world.classes):.3f} among them"
    )


def described(row: Row, world: World, pools: list[float]) -> str:
    """One line of the table."""
    low, high = interval(row.hit)
    lowest, highest = interval(row.hit, world.groups)
    draws = " " * 12
    if len(row.draws) > 1:
        draws = f"{row.draws[:, 0].min():6.2f} {row.draws[:, 0].std():.3f}"
    tops = "  ".join(f"{value:.2f}" for value in pools)
    return (
        f"{row.top1:.3f} ({low:.2f}..{high:.2f}; {lowest:.2f}..{highest:.2f})       {draws} |  "
        f"{tops} |       {row.deviations:.2f}  {row.means:.2f} {row.right:.3f} {row.other:.3f} "
        f"{row.among:.3f}     {row.identity:.2f}   {row.length:.1f}  {row.to_offset:.2f}"
    )


def print_pairs(found: dict[str, Row]) -> None:
    """Differences of top-1 on the same photos."""
    print("\npaired differences of top-1, 95 % over photos")
    for one, other in PAIRS:
        difference = found[one].hit - found[other].hit
        low, high = interval(difference)
        print(f"  {one} - {other}: {difference.mean():+.3f} ({low:+.2f}..{high:+.2f})")


def print_limits(found: dict[str, Row]) -> None:
    """Whether the recommended rows hold what is asked of them."""
    print("\nlimits")
    for name, (least, other, alike) in LIMITS.items():
        row = found[name]
        held = (
            row.top1 >= least
            and other[0] <= row.other <= other[1]
            and alike[0] <= row.among <= alike[1]
            and row.identity >= IDENTITY
        )
        print(f"  {name}: top-1 >= {least}, identity >= {IDENTITY}: {'held' if held else 'MISSED'}")


if __name__ == "__main__":
    main()
