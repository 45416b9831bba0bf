"""SPVAE: hierarchical decompositional mixtures of variational autoencoders (Tan & Peharz, ICML 2019)."""

from spvae_tf.ops.runtime import keep_freed_memory, prefer_wide_vectors

keep_freed_memory()  # before TensorFlow makes its device and its threads ask for memory
prefer_wide_vectors()  # before XLA reads its flags

from spvae_tf.errors import InputError  # noqa: E402
from spvae_tf.model.region_graph import RegionGraph, poon_domingos, random_binary_trees, single_region  # noqa: E402
from spvae_tf.model.spn import SumProductNetwork  # noqa: E402
from spvae_tf.spvae import SPVAE, build_model  # noqa: E402
from spvae_tf.training.run import load  # noqa: E402

__version__ = "0.1.0"

__all__ = ["SPVAE", "InputError", "RegionGraph", "SumProductNetwork", "build_model", "load", "poon_domingos",
           "random_binary_trees", "single_region"]
