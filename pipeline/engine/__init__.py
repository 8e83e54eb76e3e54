"""The engine: from a list of sources to a verified archive, on this machine or on a Ray cluster."""
