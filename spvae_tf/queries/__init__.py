"""What to ask a model: functions whose first argument is an SPVAE, which has them as methods too (spvae.py).

density.py says how likely images are, images.py makes images, latent.py tells the latent states of images. They share
leaves.py, check what comes in by masks.py, and answer by batches.py; serving.py exports three of them.
"""
