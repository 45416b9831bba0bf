"""What a result was computed on and with: the device, the versions, the commit."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from spvae_tf.ops.device import on_gpu


def here():
    """`device`, `versions` and `commit` of this process, a dict."""
    return dict(device=device(), versions=versions(), commit=commit())


def continued(began, here):
    """`here` for what began elsewhere: its device is added, versions and commit are those it began with."""
    found = here | {key: began[key] for key in here if key in began}
    devices = dict.fromkeys([*found["device"].split("; "), here["device"]])
    return found | dict(device="; ".join(devices))


def device():
    """The GPU's name, or the processor's with its number of cores."""
    if on_gpu():
        gpu = tf.config.list_physical_devices("GPU")[0]
        return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    return f"{processor}, {cores} core{'' if cores == 1 else 's'}"


def versions():
    """The versions that can change a result."""
    return (f"python {platform.python_version()}; tensorflow {tf.__version__}; keras {keras.__version__}; "
            f"tensorflow-probability {importlib.metadata.version('tensorflow-probability')}; numpy {np.__version__}")


def commit():
    """The commit of the code, with a plus when its files were changed since; "unknown" where git does not have it."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, encoding="utf-8",
                              errors="replace", check=True).stdout.strip()
    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # else the repository around it is another's
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/results")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
