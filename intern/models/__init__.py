"""Base models and embedders: where their files come from, and how an embedder is run."""
