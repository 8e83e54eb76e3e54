"""Measurements: each compares in one run, on the same data, and returns what it measured."""
