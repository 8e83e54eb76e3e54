"""Finds the packages: each folder under models/, pipeline/ and jobs/, with ``lichen.`` in front of its name.

Everything else about the project is in pyproject.toml.
"""

from setuptools import find_packages, setup

ROOTS = ("models", "pipeline", "jobs")

setup(packages=[f"lichen.{name}" for name in find_packages(include=[p for r in ROOTS for p in (r, f"{r}.*")])])
