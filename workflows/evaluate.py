"""The evaluation on real models: how alike are a picture and what its prompt brings back?

    python workflows/evaluate.py --checkpoint sd15.safetensors \\
        --clip clip-vit-large-patch14.safetensors --pictures photos/ --judge dino=dinov2/ --gpu

Runs the variation workflow on a ComfyUI for every picture and row, and compares the results with
the reference picture by the image embeddings of one or more judges. Prints a table with 95 %
bootstrap intervals and writes build/evaluation-real.json.

Judges are folders in transformers format (CLIP, DINO, ...). Without one the CLIP file itself
judges; it is also what made the prompts, so that its similarities come out too high and only
compare rows. A picture with a text file of the same name also gets the row `caption`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

if not __package__:
    import checkout  # noqa: F401  makes the next lines work for a script

from image_to_prompt.workflows.api_client import client
from image_to_prompt.workflows.api_client.inputs import InputsError
from image_to_prompt.workflows.comfyui import hosts, server
from image_to_prompt.workflows.run import BASES, load_workflow, reach, run_workflow

WORKFLOW = hosts.PACK / "workflows" / "api" / "variation.json"
RESULT = hosts.PACK / "build" / "evaluation-real.json"
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
Judge = Callable[[Image.Image], Tensor]
# Row -> what it changes in the variation workflow.
ROWS: dict[str, dict[str, object]] = {
    "closed_form": {},
    "ridge": {"LoadProjection.method": "ridge"},
    "transpose": {"LoadProjection.method": "transpose"},
    "uncut": {"LoadProjection.cutoff": 0.0001},
    "null": {"strength": 0.0},
}


def pictures_in(folder: Path, most: int) -> list[Path]:
    """The first `most` pictures of a folder, by name."""
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS)
    if not found:
        raise SystemExit(f"no pictures ({', '.join(ENDINGS)}) in {folder}")
    return found[:most]


def generate(url: str, row: str, picture: Path, options: argparse.Namespace) -> Image.Image:
    """What a row's prompt of a picture brings back."""
    settings = dict(ROWS.get(row, {})) | {
        "seed": options.seed,
        "steps": options.steps,
        "width": options.size,
        "height": options.size,
        "checkpoint": options.checkpoint.name,
        "clip_vision": options.clip.name,
        "projection_file": options.clip.name,
    }
    workflow = load_workflow(WORKFLOW)
    if row == "caption":
        workflow = with_caption(workflow, picture.with_suffix(".txt").read_text().strip())
    out = options.out / row / picture.stem
    (image,) = run_workflow(url, workflow, out, [picture], settings=settings)
    return Image.open(image).convert("RGB")


def with_caption(workflow: dict, caption: str) -> dict:
    """The variation workflow with a text prompt in place of the picture's, links and all."""
    number = next(n for n, node in workflow.items() if node["class_type"] == "ImageToPromptEmbed")
    clip = workflow[number]["inputs"]["clip"]
    text = {"class_type": "CLIPTextEncode", "inputs": {"clip": clip, "text": caption}}
    sampler = next(node for node in workflow.values() if node["class_type"] == "KSampler")
    # Beside, not in place: the embed node would else be missing where its settings go.
    graph = {**workflow, "caption": {**text, "_meta": {"title": "caption"}}}
    positive = {**sampler["inputs"], "positive": ["caption", 0]}
    return {
        n: {**node, "inputs": positive} if node is sampler else node for n, node in graph.items()
    }


def judges_of(options: argparse.Namespace) -> dict[str, Judge]:
    """The judges asked for, or the CLIP file's own vision encoder."""
    if not options.judge:
        return {"clip_similarity": clip_judge(options.clip)}
    named = (entry.partition("=") for entry in options.judge)
    return {f"{name}_similarity": folder_judge(Path(folder)) for name, _, folder in named}


def clip_judge(file: Path) -> Judge:
    """Image embeddings by the vision encoder of a CLIP ViT-L/14 file in transformers format."""
    from safetensors import safe_open
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
        projection_dim=768,
    )
    model = CLIPVisionModelWithProjection(config).eval()
    with safe_open(file, "pt") as stored:
        wanted = [k for k in set(stored.keys()) if k.startswith(("vision_model.", "visual_proj"))]
        state = {k: stored.get_tensor(k).float() for k in wanted if "position_ids" not in k}
    model.load_state_dict(state)
    processor = CLIPImageProcessor()
    return lambda image: model(**processor(images=image, return_tensors="pt")).image_embeds[0]


def folder_judge(folder: Path) -> Judge:
    """Image embeddings by a model in transformers format: projected, pooled, or its CLS state."""
    from transformers import AutoImageProcessor, AutoModel

    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)

    def judge(image: Image.Image) -> Tensor:
        vision = getattr(model, "vision_model", model)
        output = vision(**processor(images=image, return_tensors="pt"))
        pooled = getattr(output, "pooler_output", None)
        state = output.last_hidden_state[:, 0] if pooled is None else pooled
        return getattr(model, "visual_projection", torch.nn.Identity())(state)[0]

    return judge


def interval(values: Tensor, draws: int = 2000) -> dict[str, float]:
    """Mean of (N,) values with its 95 % bootstrap interval."""
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(values), (draws, len(values)), generator=generator)
    low, high = values[picks].mean(dim=1).quantile(torch.tensor([0.025, 0.975]))
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


def rows_for(pictures: list[Path], wanted: list[str] | None) -> Iterator[tuple[str, list[Path]]]:
    """Each row with the pictures it can be measured on."""
    captioned = [p for p in pictures if p.with_suffix(".txt").exists()]
    for row, found in {"caption": captioned, **dict.fromkeys(ROWS, pictures)}.items():
        if found and (not wanted or row in wanted):
            yield row, found


@torch.no_grad()
def evaluate(url: str, options: argparse.Namespace) -> dict[str, dict]:
    judges = judges_of(options)
    pictures = pictures_in(options.pictures, options.n)
    references = {p: Image.open(p).convert("RGB") for p in pictures}
    results: dict[str, dict] = {}
    for row, subjects in rows_for(pictures, options.rows):
        made = {p: generate(url, row, p, options) for p in tqdm(subjects, desc=row)}
        results[row] = {
            name: interval(
                torch.stack(
                    [
                        torch.cosine_similarity(judge(references[p]), judge(image), dim=0)
                        for p, image in made.items()
                    ]
                )
            )
            for name, judge in judges.items()
        }
        print(f"{row:12}", *(f"{k} {_shown(v)}" for k, v in results[row].items()), flush=True)
    return results


def _shown(score: dict[str, float]) -> str:
    return f"{score['value']:.3f} [{score['low']:.3f} {score['high']:.3f}]"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="an SD 1.x checkpoint")
    parser.add_argument("--clip", type=Path, required=True, help="a full CLIP ViT-L/14 file")
    parser.add_argument("--pictures", type=Path, required=True, help="a folder")
    parser.add_argument("--judge", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--rows", nargs="*", choices=["caption", *ROWS])
    parser.add_argument("--n", type=int, default=100, help="pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--host", type=Path, help="folder of a ComfyUI; else the first found")
    parser.add_argument("--gpu", action="store_true", help="let ComfyUI use the GPU")
    parser.add_argument("--out", type=Path, default=RESULT.parent / "evaluation-real")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    try:
        with server.ended_by_sigterm():
            results = _on_host(options)
    except (client.RunError, hosts.HostError, InputsError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"pictures": options.n, **results}, indent=1) + "\n")
    print(f"written to {RESULT}")
    return 0


def _on_host(options: argparse.Namespace) -> dict[str, dict]:
    chosen = hosts.host_in(options.host) if options.host else hosts.first()
    base = BASES / chosen.folder.name
    server.place(base, "checkpoints", options.checkpoint)
    server.place(base, "clip_vision", options.clip)
    with reach(None, chosen.folder, cpu=not options.gpu) as url:
        return evaluate(url, options)


if __name__ == "__main__":
    sys.exit(main())
