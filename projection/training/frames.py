"""Tensors of a failed step are released at once, and not when its exception is forgotten."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def released() -> Iterator[None]:
    """An exception of the block leaves it without the local variables of the frames that ended.

    A traceback holds its frames, and these hold activations and graphs: gigabytes, for as long as
    a caller keeps the exception, and longer where it is part of a reference cycle. The lines of
    the traceback stay.
    """
    outer = sys.exc_info()[1]  # handled by a caller, whose frames are not ours to clear
    try:
        yield
    except BaseException as error:
        seen, chain = {id(outer)}, [error]
        while chain:
            current = chain.pop()
            if id(current) not in seen:
                seen.add(id(current))
                traceback.clear_frames(current.__traceback__)
                chain += [e for e in (current.__cause__, current.__context__) if e is not None]
        raise
