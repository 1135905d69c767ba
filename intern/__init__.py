"""LLaMA Intern as a library: skills, routing, knowledge, engines and the pipeline that joins them.

Nothing in this package imports `server`; the web edge calls in here, never the other way round.
"""

__version__ = "0.1.0"
