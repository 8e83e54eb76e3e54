"""Entropy coding: frozen integer tables and the range ANS coder that uses them."""
