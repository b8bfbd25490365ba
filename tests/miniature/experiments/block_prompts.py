"""Prompts of single cross-attention blocks in the narrow U-Nets of two levels, one block each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

# By the host's names.
BLOCKS = {
    "input 1": "down_blocks.0.attentions.0",
    "input 3": "down_blocks.1.attentions.0",
    "middle": "mid_block.attentions.0",
    "output 0": "up_blocks.0.attentions.0",
    "output 1": "up_blocks.0.attentions.1",
    "output 2": "up_blocks.1.attentions.0",
    "output 3": "up_blocks.1.attentions.1",
}
# As in SD 1.x: composition is the deepest level's input; style leaves it, the middle and the
# first outputs of that level out.
COMPOSITION = ("input 3",)
STYLE = ("input 1", "output 1", "output 2", "output 3")
# The lower of the two resolutions, and the upper one.
INNER = ("input 3", "middle", "output 0", "output 1")
OUTER = ("input 1", "output 2", "output 3")


@contextmanager
def block_prompts(unet: nn.Module, prompts: dict[str, Tensor]) -> Iterator[None]:
    """Within the block these cross-attention blocks read other prompts (N, 77, 96).

    The second half of a batch is the conditional one, in chunks as `Miniature.draw` makes them.
    """
    with ExitStack() as stack:
        for name, prompt in prompts.items():
            attention = unet.get_submodule(f"{BLOCKS[name]}.transformer_blocks.0.attn2")
            for module in (attention.to_k, attention.to_v):

                def swap(_: object, given: tuple[Tensor], prompt: Tensor = prompt) -> Tensor:
                    null, own = given[0].chunk(2)
                    return torch.cat([null, prompt[: len(own)]])

                stack.callback(module.register_forward_pre_hook(swap).remove)
        yield
