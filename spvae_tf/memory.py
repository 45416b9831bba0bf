"""Keeps the C library from giving a compiled step's memory back to the system after every step."""

import ctypes

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TOP_PAD = 64 * 2**20  # bytes by which the heap grows at once


def keep_freed_memory():
    """Lets this process reuse freed memory instead of returning it to the system, where the C library is glibc.

    For the whole process, hence called where a model is built. A step compiled by XLA asks for all its temporary memory
    at once. glibc maps so large a piece afresh each time, and the system clears it page by page as it is touched:
    10,000 page faults, and a third of an SPVAE step on a CPU.

    Returns:
      Whether the C library took the settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return False
    # no piece is mapped on its own, and the top of the heap is never cut
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: TOP_PAD}
    return all([mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings.items()])
