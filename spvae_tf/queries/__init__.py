"""What to ask a model: functions whose first argument is an SPVAE, which has them as methods too (spvae.py).

density.py says how likely images are, images.py makes images, latent.py tells the latent states of images. They share
leaves.py, check what comes in by masks.py, and answer by batches.py; serving.py exports three of them.

Images `x` are [batch, pixels], and masks are as masks.py explains. An argument that `density.log_prob` has too means
what it means there, and a query raises InputError as it does.
"""
