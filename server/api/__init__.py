"""The own API: skills, examples, documents, reviews, records and keys of the caller's team, under /api."""
