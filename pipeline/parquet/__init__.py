"""Parquet files that may come from anybody, read in bounded memory: manifests, and the tables of archives."""
