"""Blocks that networks of both schemes are built from: layers, attention, the systems' blocks, the DCT."""
