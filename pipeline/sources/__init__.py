"""Where pictures come from: folders, bucket prefixes, single files, manifests, tar files, through fsspec."""

from lichen.pipeline.sources.base import Source
from lichen.pipeline.sources.listing import list_sources
from lichen.pipeline.sources.reading import MAX_SOURCE_BYTES, read_again, read_source
from lichen.pipeline.sources.unique import check_unique

__all__ = ["MAX_SOURCE_BYTES", "Source", "check_unique", "list_sources", "read_again", "read_source"]
