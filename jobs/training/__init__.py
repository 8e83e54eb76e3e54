"""Training of the learned codecs: data cache, configuration, loop, export."""
