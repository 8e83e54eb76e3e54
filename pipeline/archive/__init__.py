"""Archives: stores, plans, shards, commits, snapshots, leases, readers. See docs/format.md."""
