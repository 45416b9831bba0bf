"""Keeps a compiled step's memory from being given back to the system after every step."""

import ctypes
import os

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
TOP_PAD = 64 * 2**20  # bytes by which the heap grows at once


def keep_freed_memory():
    """Lets this process reuse freed memory instead of returning it to the system.

    For the whole process, hence called when the package is imported, before TensorFlow makes its CPU device. A step
    compiled by XLA asks for all its temporary memory at once. glibc maps so large a piece afresh each time, and the
    system clears it page by page as it is touched: 10,000 page faults and a third of an SPVAE step on a CPU, 30,000 for
    a convolutional model.

    Tensors and temporary memory come from TensorFlow's own pool, the allocator it has for GPUs, unless the environment
    says otherwise (TF_CPU_ALLOCATOR_USE_BFC). What is not TensorFlow's, convolutions' scratch space, stays on the C
    library's heap, where that is glibc and the environment does not set malloc up itself (variables MALLOC_… and
    GLIBC_TUNABLES). The heap alone would not do: glibc (2.36) cannot use a freed aligned piece again for one of the
    same size once its neighbours are taken, and then every batch of a block may lie above the one before.

    Returns:
      Whether the C library took the settings.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
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
