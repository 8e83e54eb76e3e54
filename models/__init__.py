"""Codecs: pixels to bitstreams and back. Networks, entropy coding, weights; no Ray, no I/O beyond weights."""
