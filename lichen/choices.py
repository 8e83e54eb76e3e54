"""The words that settings may be, defined once for configurations, functions and the command line."""

from __future__ import annotations

from typing import Literal

OnDuplicate = Literal["error", "first", "rename"]
"""What becomes of a second source with the same key: it ends the job, is left out, or gets a key of its own."""
OnCollision = Literal["error", "replace", "keep"]
"""What becomes of a key that the archive has from another source: the job is refused, or either picture stays."""
ExecutorName = Literal["auto", "process", "ray", "local"]
"""Where shards are worked on: whatever suits, one process of its own, Ray, or the process that runs the job."""
Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""What the transforms compute in; entropy coding is exact whatever it is."""
LogFormat = Literal["text", "json"]
"""How a line of the log is written."""
