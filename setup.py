"""Finds the packages: lichen/ and what is under models/, pipeline/ and jobs/, these with ``lichen.`` in front.

Everything else about the project is in pyproject.toml.
"""

from setuptools import find_packages, setup

ROOTS = ("models", "pipeline", "jobs")

INSIDE = [f"lichen.{name}" for name in find_packages(include=[p for r in ROOTS for p in (r, f"{r}.*")])]

setup(packages=["lichen", *INSIDE])
