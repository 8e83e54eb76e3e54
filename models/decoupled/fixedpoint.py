"""Units and limits of the integers that select coder tables: those of ``integer`` and of ``hypercontext``."""

UNIT = 256
"""Fixed-point unit of activations, hyper-latent steps, means and index offsets."""
WEIGHT_UNIT = 4096
SLOPE = 2285
"""Table indexes per unit of log standard deviation, in 1/UNIT."""
LIMIT = 1 << 19
"""Activations and dequantised hyper-latents are clamped to this magnitude."""
