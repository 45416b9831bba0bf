"""SPVAE: hierarchical decompositional mixtures of variational autoencoders (Tan & Peharz, ICML 2019)."""

from spvae_tf.errors import InputError
from spvae_tf.experiment import load
from spvae_tf.memory import keep_freed_memory
from spvae_tf.model import SPVAE, build_model
from spvae_tf.region_graph import RegionGraph, poon_domingos, random_binary_trees, single_region
from spvae_tf.spn import SumProductNetwork

keep_freed_memory()  # of the whole process, while few of its threads have asked for memory yet

__version__ = "0.1.0"

__all__ = ["SPVAE", "InputError", "RegionGraph", "SumProductNetwork", "build_model", "load", "poon_domingos",
           "random_binary_trees", "single_region"]
