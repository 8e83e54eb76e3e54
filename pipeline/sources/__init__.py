"""Where pictures come from: folders, bucket prefixes, single files, manifests, tar files, through fsspec."""

from lichen.pipeline.sources.base import Source, read_source
from lichen.pipeline.sources.listing import list_sources
from lichen.pipeline.sources.unique import check_unique

__all__ = ["Source", "check_unique", "list_sources", "read_source"]
