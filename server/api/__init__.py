"""The own API, under /api, for the caller's team: skills, examples, documents, reviews, records, keys; and of learning
runs, datasets, adapters, deployments, reports and exports.
"""
