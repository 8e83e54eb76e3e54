"""Archives and the flow through one worker: sources, images, shards, engine, quality, report."""
