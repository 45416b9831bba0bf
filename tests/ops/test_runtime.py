"""What `configure` does to a process, and importing does not: memory is kept, vectors are wide, float32 is float32."""

import os
import subprocess
import sys

import pytest
import tensorflow as tf

from spvae_tf.ops import runtime

# Page faults while a thread allocates and writes memory that it had once before: up to the 64 MiB that a thread's own
# heap can hold. Larger pieces are mapped; tensors come from TensorFlow's pool.
FAULTS = """
import ctypes, resource, threading
{first}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def use(size):
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        piece = libc.malloc(size)
        libc.memset(piece, 1, size)
        libc.free(piece)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

for size in (40, 60):
    thread = threading.Thread(target=use, args=(size * 2**20,))
    thread.start()
    thread.join()
"""


def _faults(first):
    script = FAULTS.format(first=first)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_freed_memory_is_kept():
    if min(_faults("")) < 1000:
        pytest.skip("the system maps large pages: there is nothing to keep")
    assert max(_faults("import spvae_tf; spvae_tf.configure()")) < 100


# By how many MiB the heap grows while tensors of 40 MB come and go, small pieces of one size after another staying.
GROWTH = """
import ctypes
import spvae_tf
import tensorflow as tf

spvae_tf.configure()

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
tf.zeros([1])
before = libc.sbrk(0)
for size in range(8, 136, 16):
    for _ in range(100):
        tensor = tf.raw_ops.Empty(shape=[10_000_000], dtype=tf.float32)
        libc.malloc(ctypes.c_size_t(size))
        del tensor
print((libc.sbrk(0) - before) // 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heap")
def test_large_tensors_do_not_pile_up_beside_small_pieces_that_stay():
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPU_ALLOCATOR_USE_BFC"}
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) < 200


@pytest.mark.parametrize("given, wanted", [("", "512"), ("--xla_cpu_prefer_vector_width=128", "128"),
                                           ("--xla_cpu_enable_fast_min_max=false", "512")])
def test_xla_is_asked_for_wide_vectors_unless_the_environment_says_otherwise(given, wanted):
    script = "import os, spvae_tf, tensorflow as tf; spvae_tf.configure(); print(os.environ['XLA_FLAGS'])\n" \
             "print(tf.function(lambda: tf.ones([3]), jit_compile=True)().numpy().sum())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          env=os.environ | {"XLA_FLAGS": given})
    flags, total = done.stdout.split("\n")[:2]
    assert set(flags.split()) == {*given.split(), f"--xla_cpu_prefer_vector_width={wanted}"} and float(total) == 3


def test_a_file_of_xla_flags_is_left_alone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "/somewhere/flags.txt")  # to which XLA aborts if anything is added
    runtime.prefer_wide_vectors()
    assert os.environ["XLA_FLAGS"] == "/somewhere/flags.txt"


def test_products_on_a_gpu_are_of_float32():
    assert not tf.config.experimental.tensor_float_32_execution_enabled()  # by default they are of TF32


def test_importing_does_nothing_to_the_process():
    script = "import os; before = dict(os.environ); import tensorflow as tf; import spvae_tf\n" \
             "print(tf.config.experimental.tensor_float_32_execution_enabled(),\n" \
             "      {'XLA_FLAGS', 'TF_CPU_ALLOCATOR_USE_BFC'} & {n for n in os.environ if n not in before})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          env={name: value for name, value in os.environ.items()
                               if name not in ("XLA_FLAGS", "TF_CPU_ALLOCATOR_USE_BFC")})
    assert done.stdout.split("\n")[0] == "True set()"
