"""Measures of a decoded picture as kernels that are cheap enough for every picture of a job."""
