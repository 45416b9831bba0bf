"""What the process, the C library, TensorFlow and XLA are told before they start."""

import ctypes
import os
import signal

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


def end_softly():
    """Makes SIGTERM, of a preempted job, and SIGHUP, of a lost terminal, a KeyboardInterrupt of that number.

    Training and tests then save what they have. A signal that is ignored stays so, and one that comes twice, as from
    `timeout`, counts once.
    """
    def interrupt(number, frame):
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, interrupt)


def prefer_wide_vectors():
    """Lets XLA use vectors of 512 bits where a CPU has them.

    XLA stops at 256 bits by itself, and exponentials, logarithms and polynomials take nearly twice as long. It reads
    XLA_FLAGS of the environment when it first compiles. Neither a flag that is there nor a file of flags is touched.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    if (not flags or flags[0].startswith("-")) and "xla_cpu_prefer_vector_width" not in " ".join(flags):
        os.environ["XLA_FLAGS"] = " ".join([*flags, "--xla_cpu_prefer_vector_width=512"])


def keep_freed_memory():
    """Lets this process reuse freed memory instead of returning it to the system.

    A step compiled by XLA asks for all its temporary memory at once. glibc maps so large a piece afresh each time, and
    the system clears it page by page as it is touched: 10,000 page faults and a third of an SPVAE step on a CPU.

    Tensors and temporary memory therefore come from TensorFlow's own pool, the allocator it has for GPUs, unless the
    environment says otherwise (TF_CPU_ALLOCATOR_USE_BFC). The scratch space of convolutions is the C library's. glibc
    is told to keep freed memory unless the environment sets malloc up itself (MALLOC_… and GLIBC_TUNABLES). That alone
    would not do: glibc (2.36) cannot use a freed aligned piece again for one of the same size once small pieces that
    stay lie beside it. What exceeds the 64 MiB of a thread's own heap is mapped all the same.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return
    # no piece is mapped on its own, and the top of a heap is never cut
    for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, TOP_PAD)):
        mallopt(ctypes.c_int(name), ctypes.c_int(value))
