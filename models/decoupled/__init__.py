"""Our own codecs: scales from the integers of the hyper-latent alone, means in floating point (docs/codec.md)."""
