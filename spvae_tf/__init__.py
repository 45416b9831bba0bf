"""SPVAE: hierarchical decompositional mixtures of variational autoencoders (Tan & Peharz, ICML 2019)."""

from spvae_tf.errors import InputError
from spvae_tf.model.region_graph import RegionGraph, poon_domingos, random_binary_trees, single_region
from spvae_tf.model.spn import SumProductNetwork
from spvae_tf.ops.runtime import configure
from spvae_tf.spvae import SPVAE, build_model
from spvae_tf.training.pretrained import pretrained
from spvae_tf.training.run import load

__version__ = "0.1.0"

__all__ = ["SPVAE", "InputError", "RegionGraph", "SumProductNetwork", "build_model", "configure", "load",
           "poon_domingos", "pretrained", "random_binary_trees", "single_region"]
