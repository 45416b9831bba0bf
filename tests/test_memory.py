"""spvae_tf.memory: memory that was freed is used again without asking the system."""

import subprocess
import sys

import pytest

# Page faults while 40 MB, as much as a compiled step asks for, are allocated and written, after they were once before.
FAULTS = """
import ctypes, resource
from spvae_tf.memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    piece = libc.malloc(40 * 2**20)
    libc.memset(piece, 1, 40 * 2**20)
    libc.free(piece)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(keep):
    done = subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_freed_memory_is_kept():
    if _faults(keep=False) < 1000:
        pytest.skip("the system maps large pages: there is nothing to keep")
    assert _faults(keep=True) < 100
