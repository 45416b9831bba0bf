"""Keeps the C library from giving a compiled step's memory back to the system after every step."""

import ctypes
import os

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
TOP_PAD = 64 * 2**20  # bytes by which the heap grows at once


def keep_freed_memory():
    """Lets this process reuse freed memory instead of returning it to the system, where the C library is glibc.

    For the whole process, hence called when the package is imported. A step compiled by XLA asks for all its temporary
    memory at once. glibc maps so large a piece afresh each time, and the system clears it page by page as it is
    touched: 10,000 page faults and a third of an SPVAE step on a CPU, 30,000 for a convolutional model. Nothing is done
    where the environment sets malloc up itself (variables MALLOC_… and GLIBC_TUNABLES).

    Returns:
      Whether the C library took the settings.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return False
    # No piece is mapped on its own, and the top of the heap is never cut. Threads that have no heap yet share one:
    # their own would hold no piece above 64 MiB, and such a piece is mapped whatever M_MMAP_MAX says.
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: TOP_PAD, M_ARENA_MAX: 1}
    return all([mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings.items()])
