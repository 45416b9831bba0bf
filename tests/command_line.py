"""Scripts through their command line, each in a new process, which is forked from one that has imported TensorFlow."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(["tensorflow", "ml_collections", "spvae_tf.spvae"])


def run(script, *flags, cwd=ROOT):
    """Runs a script of scripts/ in the folder `cwd`; returns a CompletedProcess with its texts. Not for threads."""
    with tempfile.NamedTemporaryFile("r+") as out, tempfile.NamedTemporaryFile("r+") as err:
        process = _forkserver.Process(target=_main, args=(script, [*map(str, flags)], cwd, out.name, err.name))
        process.start()
        process.join()
        return subprocess.CompletedProcess([script, *flags], process.exitcode, out.read(), err.read())


def _main(script, flags, cwd, out, err):
    for name, stream in ((out, sys.stdout), (err, sys.stderr)):
        os.dup2(os.open(name, os.O_WRONLY), stream.fileno())
    os.chdir(cwd)
    path = ROOT / "scripts" / script
    sys.argv, sys.path[:0] = [str(path), *flags], [str(path.parent)]
    runpy.run_path(str(path), run_name="__main__")
