"""Seconds to encode Load Projection's 300 built-in captions: python tests host.caption_timing

    python tests host.caption_timing --host <ComfyUI>

The text encoder has SD 1.x's depth and width and random weights, which change no time. Told are
seconds and CPU seconds of what a gap above 0 adds: statistics of the captions' EOS states. Run by
the host's own Python.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path

from image_to_prompt.tests.host.in_process import make_importable


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    make_importable(options.host)
    from comfy.cli_args import args

    args.cpu = True
    import torch

    import image_to_prompt

    asyncio.run(image_to_prompt.comfy_entrypoint())
    text = sys.modules["image_to_prompt.nodes.host.text"]
    from image_to_prompt.projection import broad_captions, vocabulary_words

    clip = full_size_clip()
    taken = []
    with torch.inference_mode():
        words = vocabulary_words(text.vocabulary(clip))
        captions = broad_captions(words=words)
        for _ in range(options.repeats):
            began, processor = time.perf_counter(), time.process_time()
            states = text.eos_states(clip, captions)
            taken.append((time.perf_counter() - began, time.process_time() - processor))
    print(
        f"{len(captions)} captions, states {tuple(states.shape)}, {torch.get_num_threads()} thread"
    )
    for name, values in zip(("seconds", "CPU seconds"), zip(*taken, strict=True), strict=True):
        told = ", ".join(f"{value:.1f}" for value in values)
        print(f"{name}: median {statistics.median(values):.1f} of {told}")


def full_size_clip():
    """SD 1.x's text encoder, 12 layers of width 768 in half precision, with random weights."""
    import comfy.sd
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
    config.num_hidden_layers, config.eos_token_id, config.bos_token_id = 12, 49407, 49406
    torch.manual_seed(0)
    state = {name: value.half() for name, value in CLIPTextModel(config).state_dict().items()}
    state = {n if n.startswith("text_model.") else f"text_model.{n}": v for n, v in state.items()}
    with torch.inference_mode():
        return comfy.sd.load_text_encoder_state_dicts(
            [state], clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION
        )


if __name__ == "__main__":
    main()
