"""One module for each kind of picture file, and what they share: limits, colours, metadata, writing."""
