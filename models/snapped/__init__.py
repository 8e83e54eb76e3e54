"""Published networks: an entropy model in float64 whose decisions are snapped to integers (docs/codecs.md)."""
