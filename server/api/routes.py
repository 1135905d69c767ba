"""The own API's routes, a module a noun."""

from __future__ import annotations

from fastapi import APIRouter

from server.api import ask, documents, examples, installation, keys, records, reviews, route, skills

router = APIRouter()
for noun in (ask, route, skills, documents, examples, reviews, records, keys, installation):
    router.include_router(noun.router)
