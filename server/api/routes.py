"""The own API's routes, a module a noun."""

from __future__ import annotations

from fastapi import APIRouter

from server.api import (
    adapters,
    ask,
    datasets,
    deployments,
    documents,
    examples,
    export,
    installation,
    keys,
    records,
    reports,
    reviews,
    route,
    runs,
    skills,
)

SERVING = (ask, route, skills, documents, examples, reviews, records)
LEARNING = (runs, reports, datasets, adapters, deployments, export)

router = APIRouter()
for noun in (*SERVING, *LEARNING, keys, installation):
    router.include_router(noun.router)
