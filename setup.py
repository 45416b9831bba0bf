"""Package of spvae-tf.

Tested with TensorFlow 2.21, TensorFlow Probability 0.25 and Keras 3.15 on Python 3.11 and 3.12.
"""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="spvae-tf",
    version="0.1.0",
    description="Hierarchical decompositional mixtures of variational autoencoders (SPVAE) in TensorFlow 2",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["spvae_tf", "spvae_tf.*"]),
    package_data={"spvae_tf": ["embedded/*", "paper_data/*"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1",
        "filelock>=4.1,<5",
        "importlib_resources>=6.4",  # tensorflow-datasets imports it without asking for it
        "keras>=3.10,<4",
        "matplotlib>=3.8",
        "ml_collections>=1.0",
        "numpy>=1.26,<3",
        "pillow>=10.1",
        "tensorflow>=2.20,<2.22",
        "tensorflow-datasets>=4.9.9,<5",
        "tensorflow-probability>=0.25,<0.26",
        "tf-keras>=2.20,<2.22",  # tensorflow-probability imports it without asking for it
        "tensorboard>=2.19",
        "tqdm>=4.66",
    ],
    extras_require={
        "cuda": ["tensorflow[and-cuda]>=2.20,<2.22"],
        "test": ["import-linter>=2.1", "pytest>=8", "pytest-xdist>=3.5", "ruff>=0.6", "scipy>=1.11"],
    },
)
