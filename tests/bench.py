"""Speed and memory as ratios, measured in one run on every ComfyUI found: `make bench`.

Both sides of a ratio run in turns in one process, so that a busy machine slows both alike.
Prints a table and writes build/bench.json. The models are the miniature's, which have the sizes
of SD 1.5's encoders; speed does not depend on what the weights say.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from image_to_prompt.workflows.comfyui import hosts

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "build" / "miniature"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="turns per ratio")
    options = parser.parse_args()
    search = hosts.search()
    if not search.hosts:
        print("\n".join(search.problems))
        return 1
    widen = [sys.executable, str(ROOT / "tests"), "miniature.widening.widen", "--out", str(MODELS)]
    subprocess.run(widen, check=True)
    results = {str(host): measure(host, options.repeats) for host in search.hosts}
    (ROOT / "build" / "bench.json").write_text(json.dumps(results, indent=1))
    for host, rows in results.items():
        print(f"\n{host}")
        for name, row in rows.items():
            spread = f"{row['low']:.3f} to {row['high']:.3f}"
            print(f"  {name:62s} {row['value']:8.3f}  ({spread}; goal {row['goal']})")
    return 0


def measure(host: hosts.Host, repeats: int) -> dict:
    """Runs the scripts of tests/host in the host's Python."""
    rows = {}
    for name in ("bench_in_host", "bench_training"):
        command = [
            host.python,
            ROOT / "tests",
            f"host.{name}",
            "--host",
            host.folder,
            "--models",
            MODELS,
        ]
        finished = subprocess.run(
            [*map(str, command), "--repeats", str(repeats)], check=True, stdout=subprocess.PIPE
        )
        rows |= json.loads(finished.stdout.splitlines()[-1])
    return rows


if __name__ == "__main__":
    sys.exit(main())
