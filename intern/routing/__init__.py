"""Routing: which skill serves a request, with what confidence, or none. `router.py` is the way in."""
