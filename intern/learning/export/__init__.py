"""Adapters leave the house: unmerged, or merged for transformers or llama.cpp; each is tried before it is out."""
