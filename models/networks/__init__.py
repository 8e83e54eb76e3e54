"""Networks of the learned codecs: shared blocks, the shared entropy model, one file per published system."""
