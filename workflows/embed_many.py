"""Turns a folder of pictures into prompts, as rows of Parquet files, without ComfyUI.

    python workflows/embed_many.py --images photos/ --clip clip-vit-large-patch14/ --out prompts/

A row holds a picture's name, its prompt embedding (float16), what is wrong with a broken file,
the encoder's name, and the settings. With --files there is a prompt file for each picture as well,
for Load Prompt in ComfyUI. The same command again embeds only what is missing.
workflows/COLLECTIONS.md tells more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    import checkout  # noqa: F401  makes the next lines work for a script

from image_to_prompt.workflows.api_client.inputs import InputsError
from image_to_prompt.workflows.comfyui.server import ended_by_sigterm
from image_to_prompt.workflows.many.embedding import command
from image_to_prompt.workflows.many.missing import MissingError
from image_to_prompt.workflows.many.results.folder import InUseError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--clip", required=True, help="folder of a CLIPModel of transformers")
    parser.add_argument("--projection", help="a saved projection; the closed form without")
    parser.add_argument("--out", type=Path, default=Path("prompts"), help="folder for the rows")
    parser.add_argument("--files", type=Path, help="folder for a prompt file of each picture, too")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--cpu", action="store_true", help="leave the GPUs alone")
    parser.add_argument("--address", help="of a Ray cluster, whose machines see the pictures")
    parser.add_argument("--engine", choices=("threads", "ray"), help="ray: on this machine too")
    parser.add_argument("--pack", type=Path, help="this pack's folder on the cluster's machines")
    options = parser.parse_args(argv)
    try:
        with ended_by_sigterm():
            return command.run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (InputsError, InUseError, MissingError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
