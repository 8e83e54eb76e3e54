"""Archives: stores, plans, shards, commits, snapshots, leases, readers. docs/format.md is the specification.

How the parts meet in a job:

- *driver*: ``check_vacant`` before anything is written; ``store.probe()``; ``create_marker``; under the lease of the
  archive (``lease.acquire`` of ``None``, waiting): ``put_codec``, ``create_job`` (or ``unfinished_jobs`` to resume, or
  ``diff_sources`` for an update) and the lease of the job. Where ``store.conditional`` is false the lease of the
  archive is held to the end instead. Then it hands out the shards of ``write_plan`` that ``job_state`` finds open.
- *worker*, given URL, storage options, ``conditional``, shard id and sources: a ``ShardWriter``; ``append`` and
  ``add`` for each picture, ``quarantine``, ``skip``; ``publish``; ``commit_shard`` if the store is conditional,
  otherwise the driver does it with the returned record. ``CommitConflict`` means that the work is done already.
- *driver*: ``split_shard`` for a shard that kills its workers; at the end ``write_snapshot``, ``finish_job``.
- *reader*: ``Archive.open``. *Now and then*: ``gc.collect``.
"""
