"""What a shard's own process asks of the system; not for processes that belong to somebody else."""

from __future__ import annotations

import contextlib
import ctypes
import resource

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt's parameters in <malloc.h>
_KEPT_BYTES = 256 << 20
_LARGE_BYTES = 32 << 20


def prepare_process() -> None:
    """Let thousands of clients connect, and keep the memory of messages that were sent.

    Giving it back to the kernel and taking it again for the next message would cost a fifth of a large reply's time.
    What is kept was needed at once before, so it lies inside the memory budget.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.suppress(OSError, AttributeError):  # a C library other than glibc
        library = ctypes.CDLL(None)
        library.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
