"""Times training steps, validation and evaluation of the four models as ratios in one run; nothing else should run.

Examples:
  python scripts/benchmark.py --json=benchmark.json --plot=results/figures/scaling.png
  python scripts/benchmark.py --models=SPVAE,VAE --kinds=step,validation,evaluation
    the least that tells how long Table 1 takes on a machine; a minute or two.
  python scripts/benchmark.py --models=SPVAE,VAE --likelihoods=discrete,logistic,tied_mixture --kinds=step
    what other likelihoods cost beside the Binomial's.
"""

import cli  # isort: skip (first: it quiets TensorFlow)
import json

from absl import flags

from spvae_tf import benchmark, files
from spvae_tf import spvae as model
from spvae_tf.reproduction import plots as figures

_MODELS = flags.DEFINE_list("models", list(model.MODELS), "Models.")
_LIKELIHOODS = flags.DEFINE_list("likelihoods", ["continuous", "discrete"], "Likelihoods.")
_REPEATS = flags.DEFINE_integer("repeats", 7, "Rounds in which the contenders take turns.", lower_bound=1)
_KINDS = flags.DEFINE_list("kinds", list(benchmark.KINDS), f"What is measured: {', '.join(benchmark.KINDS)}. "
                           "step always is.")
_JSON = flags.DEFINE_string("json", None, "All figures go to this file.")
_PLOT = flags.DEFINE_string("plot", None, "Also measures how a step grows, and draws it here.")


def main():
    report = benchmark.run([model.canonical_name(m) for m in _MODELS.value], _LIKELIHOODS.value, _REPEATS.value,
                           _KINDS.value)
    text = benchmark.format_report(report)
    if _PLOT.value:
        report["scaling"] = benchmark.scaling()
    if _JSON.value:
        files.write_text(_JSON.value, json.dumps(report, indent=1) + "\n")
    print(text)
    if _PLOT.value:
        figures.scaling(report["scaling"], _PLOT.value)


if __name__ == "__main__":
    cli.run(main)
