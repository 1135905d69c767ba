"""Knowledge: documents in, passages out. `Knowledge` is the facade; the rest stands behind it."""

from intern.knowledge.base import Knowledge, Mode
from intern.knowledge.index import ExactIndex, VectorIndex, open_index
from intern.knowledge.ingest import Ingested, Upload
from intern.knowledge.mirror import Rebuilt

__all__ = ["ExactIndex", "Ingested", "Knowledge", "Mode", "Rebuilt", "Upload", "VectorIndex", "open_index"]
