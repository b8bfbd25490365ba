"""Tensors of a failed step are released at once: not later, and not never."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def released() -> Iterator[None]:
    """An exception of the block leaves it without the block's activations and graphs.

    Two things hold them, gigabytes in all. A traceback holds its frames, and these their local
    variables, for as long as a caller keeps the exception: they are cleared, the lines stay. And
    where a backward pass fails, autograd's queue of the thread holds the functions that have not
    run. They are dropped when they are taken from the queue, the latest first: the backward pass
    of a function that is older than all of them takes every one.
    """
    outer = sys.exc_info()[1]  # handled by a caller, whose frames are not ours to clear
    with torch.inference_mode(False), torch.enable_grad():
        leaf = torch.zeros((), requires_grad=True)
        older = leaf * 1
    try:
        yield
    except BaseException as error:
        _clear_frames(error, outer)
        with torch.inference_mode(False):
            torch.autograd.grad(older, leaf)
        raise


def _clear_frames(error: BaseException, outer: BaseException | None) -> None:
    """Clear the frames of an exception and of those behind it, but not behind `outer`."""
    seen, chain = {id(outer)}, [error]
    while chain:
        current = chain.pop()
        if id(current) not in seen:
            seen.add(id(current))
            traceback.clear_frames(current.__traceback__)
            chain += [e for e in (current.__cause__, current.__context__) if e is not None]
