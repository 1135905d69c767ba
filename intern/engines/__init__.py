"""Engines: processes that generate tokens, behind the one protocol in base.py."""

from intern.engines.base import Engine, EngineInfo, EngineRequest, Token

__all__ = ["Engine", "EngineInfo", "EngineRequest", "Token"]
