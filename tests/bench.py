"""Speed and memory as ratios, measured in one run on every ComfyUI found: `make bench`.

Both sides of a ratio run in turns in one process, so that a busy machine slows both alike.
Prints a table, writes build/bench.json, and says what moved against tests/bench_baseline.json:
by more than 2 %, with no overlap of what was measured then and now. Exit code 1 if anything
became slower or larger. --save makes the result the baseline; commit it with its reason.
The models are the miniature's, which have the sizes of SD 1.5's encoders; speed does not depend
on what the weights are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from image_to_prompt.workflows.comfyui import hosts

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "build" / "miniature"
BASELINE = ROOT / "tests" / "bench_baseline.json"
TOLERANCE = 1.02
ABSOLUTE = ", seconds"  # rows that depend on the machine are shown, and not compared

Rows = Mapping[str, Mapping[str, float]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns per ratio")
    parser.add_argument("--save", action="store_true", help="make the result the baseline")
    options = parser.parse_args()
    search = hosts.search()
    if not search.hosts:
        print("\n".join(search.problems))
        return 1
    for module in ("miniature.widening.widen", "miniature.sdxl.widen"):
        widen = [sys.executable, str(ROOT / "tests"), module, "--out", str(MODELS)]
        subprocess.run(widen, check=True)
    results = {host.version: measure(host, options.repeats) for host in search.hosts}
    (ROOT / "build" / "bench.json").write_text(json.dumps(results, indent=1))
    for version, rows in results.items():
        show(version, rows)
    if options.save:
        save(results)
        return 0
    return compare(results, known())


def measure(host: hosts.Host, repeats: int) -> dict[str, dict]:
    """Runs the scripts of tests/host in the host's Python."""
    rows = {}
    for name in ("bench_in_host", "bench_training", "bench_sdxl"):
        script = [host.python, ROOT / "tests", f"host.{name}"]
        command = [*script, "--host", host.folder, "--models", MODELS, "--repeats", repeats]
        finished = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE)
        rows |= json.loads(finished.stdout.splitlines()[-1])
    return rows


def show(version: str, rows: Mapping[str, Mapping]) -> None:
    print(f"\nComfyUI {version}")
    for name, row in rows.items():
        spread = f"{row['low']:.3f} to {row['high']:.3f}"
        print(f"  {name:62s} {row['value']:8.3f}  ({spread}; goal {row['goal']})")


def save(results: Mapping[str, Rows]) -> None:
    """Write what was measured into the baseline: ratios only, rounded. Other hosts' stay."""
    kept = known() | {
        version: {
            name: {key: round(row[key], 4) for key in ("value", "low", "high")}
            for name, row in rows.items()
            if not name.endswith(ABSOLUTE)
        }
        for version, rows in results.items()
    }
    BASELINE.write_text(json.dumps(kept, indent=1) + "\n")


def known() -> dict[str, dict]:
    """The baseline; empty where none was saved yet."""
    return json.loads(BASELINE.read_text()) if BASELINE.exists() else {}


def compare(results: Mapping[str, Rows], baseline: Mapping[str, Rows]) -> int:
    """Prints what moved; 1 if anything became worse."""
    worse = 0
    print(f"\nagainst {BASELINE.name}:")
    for version, rows in results.items():
        if version not in baseline:
            print(f"  ComfyUI {version}: not in the baseline")
            continue
        found = list(moved(rows, baseline[version]))
        for name, change in found:
            print(f"  ComfyUI {version}: {name}: {change:.3f} of what it was")
        if not found:
            print(f"  ComfyUI {version}: nothing moved")
        worse |= any(change > 1 for _, change in found)
    return int(worse)


def moved(rows: Rows, before: Rows) -> Iterator[tuple[str, float]]:
    """Names, and value / value before, of what moved beyond TOLERANCE and beyond both spreads."""
    for name, row in rows.items():
        old = before.get(name)
        if old is None:
            continue
        change = row["value"] / old["value"]
        apart = row["low"] > old["high"] or row["high"] < old["low"]
        if apart and not 1 / TOLERANCE <= change <= TOLERANCE:
            yield name, change


if __name__ == "__main__":
    sys.exit(main())
