"""What the C library, TensorFlow and XLA are told before they start."""

import ctypes
import os

import tensorflow as tf

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TOP_PAD = 64 * 2**20  # bytes by which the heap grows at once


def configure():
    """Sets this process up for SPVAE: memory that is kept, wide vectors, and float32 that is float32.

    The scripts call it. A program that imports the package should do so too, before TensorFlow computes anything; on a
    CPU a training step takes half as long again without it, and on a GPU log-likelihoods lose digits.
    """
    keep_freed_memory()
    prefer_wide_vectors()
    # a GPU's matrix units would otherwise round the factors of a product to 10 bits (TF32)
    tf.config.experimental.enable_tensor_float_32_execution(False)


def prefer_wide_vectors():
    """Lets XLA use vectors of 512 bits where a CPU has them.

    XLA stops at 256 bits by itself; exponentials, logarithms and polynomials take nearly twice as long so. The flag is
    added to the environment's XLA_FLAGS, which other processes inherit and XLA reads at its first compilation. A flag
    that is there already stays, and so does an XLA_FLAGS that names a file of flags.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    if (not flags or flags[0].startswith("-")) and "xla_cpu_prefer_vector_width" not in " ".join(flags):
        os.environ["XLA_FLAGS"] = " ".join([*flags, "--xla_cpu_prefer_vector_width=512"])


def keep_freed_memory():
    """Lets this process reuse freed memory instead of returning it to the system.

    A step compiled by XLA asks for all its temporary memory at once. glibc maps so large a piece afresh each time, and
    the system clears it page by page as it is touched: 10,000 page faults and a third of an SPVAE step on a CPU, 30,000
    for a convolutional model.

    Tensors and temporary memory therefore come from TensorFlow's own pool, the allocator it has for GPUs, unless the
    environment says otherwise (TF_CPU_ALLOCATOR_USE_BFC). What is not TensorFlow's, the scratch space of convolutions,
    is the C library's. It is told to keep freed memory if it is glibc and the environment does not set malloc up itself
    (variables MALLOC_… and GLIBC_TUNABLES). That alone would not do: glibc (2.36) cannot use a freed aligned piece
    again for one of the same size once small pieces that stay lie beside it. Threads have heaps of their own, or they
    would wait for each other's small pieces; what exceeds such a heap's 64 MiB is mapped all the same.

    Returns:
      Whether the C library took the settings; the pool is asked for in any case.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return False
    # no piece is mapped on its own, and the top of a heap is never cut
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: TOP_PAD}
    return all([mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings.items()])
