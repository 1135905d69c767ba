"""API keys: made, found by their hash, listed, revoked. The key itself is shown once and never stored."""

from __future__ import annotations

import hashlib
import secrets
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from intern.errors import InvalidInput, NotFound
from intern.store.tables import KeyRow
from intern.types import DEFAULT_TEAM, Model, new_id, now

Scope = Literal["admin", "user"]
PREFIX = "sk-intern-"
MIN_SECRET = 20  # characters of a key that somebody else made
_SHOWN = 14


class Key(Model):
    """A key as people see it: everything but the secret. `prefix` is at most a third of that."""

    id: str
    team: str
    name: str
    role: Scope
    prefix: str
    created: str
    revoked: str | None = None


def hash_key(secret: str) -> str:
    """SHA-256: keys are long and random, so a slow hash would only cost every request."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create_key(
    connection: Connection, *, team: str = DEFAULT_TEAM, name: str, role: Scope = "user", secret: str | None = None
) -> tuple[Key, str]:
    """A new key and its secret."""
    secret = secret or PREFIX + secrets.token_urlsafe(24)
    row = {
        "id": new_id("key"),
        "team": team,
        "name": name,
        "role": role,
        "prefix": secret[: min(_SHOWN, len(secret) // 3)],
        "hash": hash_key(secret),
        "created": now(),
    }
    connection.execute(sa.insert(KeyRow).values(**row))
    return _key(connection.execute(sa.select(KeyRow.__table__).where(KeyRow.id == row["id"])).one()), secret


def find_key(connection: Connection, secret: str) -> Key | None:
    """The key that `secret` belongs to, unless it was revoked."""
    query = sa.select(KeyRow.__table__).where(KeyRow.hash == hash_key(secret), KeyRow.revoked.is_(None))
    row = connection.execute(query).one_or_none()
    return None if row is None else _key(row)


def list_keys(connection: Connection, team: str | None = None) -> list[Key]:
    query = sa.select(KeyRow.__table__).order_by(KeyRow.id)
    if team is not None:
        query = query.where(KeyRow.team == team)
    return [_key(row) for row in connection.execute(query)]


def revoke_key(connection: Connection, key: str, team: str | None = None) -> None:
    """Revoke by id. Raises NotFound when there is no such key that still works."""
    statement = sa.update(KeyRow).where(KeyRow.id == key, KeyRow.revoked.is_(None))
    if team is not None:
        statement = statement.where(KeyRow.team == team)
    if connection.execute(statement.values(revoked=now())).rowcount == 0:
        raise NotFound("key", key)


def ensure_admin(connection: Connection, secret: str | None) -> str | None:
    """Make sure that an admin key exists; returns a secret that was made just now, to be printed once.

    With `secret` given (INTERN_API_KEY), that one is stored, once, and None is returned. Space around it is none of it:
    a file's last newline, say. Raises InvalidInput when it cannot be the admin key, above all when it was revoked.
    """
    if secret is not None:
        _ensure(connection, secret.strip())
        return None
    query = sa.select(sa.func.count()).select_from(KeyRow).where(KeyRow.role == "admin", KeyRow.revoked.is_(None))
    if connection.execute(query).scalar_one():
        return None
    return create_key(connection, name="first admin", role="admin")[1]


def _ensure(connection: Connection, secret: str) -> None:
    if len(secret) < MIN_SECRET or not all("!" <= character <= "~" for character in secret):
        raise _unfit(f"must have at least {MIN_SECRET} characters, random ones, all of them ASCII and none a space")
    row = connection.execute(sa.select(KeyRow.__table__).where(KeyRow.hash == hash_key(secret))).one_or_none()
    if row is None:
        create_key(connection, name="INTERN_API_KEY", role="admin", secret=secret)
        return
    known = _key(row)
    if known.revoked is not None:
        raise _unfit(f"was revoked ({known.id}) and stays so")
    if (known.role, known.team) != ("admin", DEFAULT_TEAM):
        raise _unfit(f"is the key {known.id}, with the role {known.role} in the team '{known.team}'")


def _unfit(problem: str) -> InvalidInput:
    return InvalidInput(f"The key in INTERN_API_KEY {problem}. Put another one there, or leave it unset.")


def _key(row: sa.Row[tuple[object, ...]]) -> Key:
    values = row._mapping
    return Key(
        id=values["id"],
        team=values["team"],
        name=values["name"],
        role=values["role"],
        prefix=values["prefix"],
        created=values["created"].isoformat(),
        revoked=values["revoked"].isoformat() if values["revoked"] else None,
    )
