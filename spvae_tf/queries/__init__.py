"""What to ask a model: functions whose first argument is an SPVAE, which has them as methods too (spvae.py).

density.py says how likely images are, images.py makes images, latent.py tells the latent states of images; serving.py
exports three of them. All take images `x` [batch, pixels] and masks as masks.py explains and checks them. An argument
of `density.log_prob` means the same in every query, and every query raises InputError as it does.
"""
