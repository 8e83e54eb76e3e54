"""The commands of the command line, one module each.

A module here is found by itself: it only has to define ``register(app)``, which adds its command (or its
own Typer group) to the application. Importing it must stay cheap, because ``lichen --help`` imports them
all: what is heavy (torch, ray, numpy, pyarrow, anything of ``lichen.models`` or ``lichen.pipeline`` but the
errors) is imported inside the function that runs.
"""
