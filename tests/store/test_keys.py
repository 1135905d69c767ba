"""Keys are found by a hash, shown by too little to use, and stay revoked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from intern.errors import InvalidInput, NotFound
from intern.store.engine import open_database
from intern.store.keys import MIN_SECRET, Scope, create_key, ensure_admin, find_key, list_keys, revoke_key

MINE = "sk-mine-0123456789abcdef"


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    database = open_database(database_url)
    with database.begin() as connection:
        yield connection
    database.dispose()


def test_a_key_is_found_by_its_secret_until_it_is_revoked(connection: Connection) -> None:
    key, secret = create_key(connection, name="ci", team="blue")
    assert find_key(connection, secret) == key
    assert find_key(connection, secret + "x") is None
    assert secret not in str(connection.execute(sa.text("select * from keys")).all())
    with pytest.raises(NotFound):
        revoke_key(connection, key.id, team="default")
    revoke_key(connection, key.id, team="blue")
    assert find_key(connection, secret) is None
    assert [k.id for k in list_keys(connection, "blue")] == [key.id]


def test_the_first_admin_key_is_made_once(connection: Connection) -> None:
    secret = ensure_admin(connection, None)
    assert secret is not None
    assert ensure_admin(connection, None) is None
    assert ensure_admin(connection, MINE) is None
    assert ensure_admin(connection, MINE) is None
    found = find_key(connection, MINE)
    assert found is not None
    assert found.role == "admin"
    assert len(list_keys(connection)) == 2


@pytest.mark.parametrize("secret", [None, MINE, "x" * MIN_SECRET, "y" * 200])
def test_what_is_shown_of_a_key_is_at_most_a_third(connection: Connection, secret: str | None) -> None:
    key, made = create_key(connection, name="k", secret=secret)
    assert made.startswith(key.prefix)
    assert 6 <= len(key.prefix) <= min(14, len(made) // 3)


def test_a_revoked_key_stays_so_at_the_next_start(connection: Connection) -> None:
    ensure_admin(connection, MINE)
    (key,) = list_keys(connection)
    revoke_key(connection, key.id)
    with pytest.raises(InvalidInput, match=f"INTERN_API_KEY was revoked .*{key.id}") as caught:
        ensure_admin(connection, MINE)
    assert MINE not in caught.value.message
    assert find_key(connection, MINE) is None
    assert [(k.id, k.revoked is None) for k in list_keys(connection)] == [(key.id, False)]


def test_a_key_read_from_a_file_works_without_the_file_s_newline(connection: Connection) -> None:
    assert ensure_admin(connection, f" {MINE}\n") is None
    assert ensure_admin(connection, MINE) is None
    assert find_key(connection, MINE) is not None
    assert len(list_keys(connection)) == 1


@pytest.mark.parametrize(("team", "role"), [("blue", "user"), ("blue", "admin"), ("default", "user")])
def test_another_s_key_is_not_taken_for_the_installation_s_admin(
    connection: Connection, team: str, role: Scope
) -> None:
    key, secret = create_key(connection, name="theirs", team=team, role=role)
    with pytest.raises(InvalidInput, match=f"{key.id}, with the role {role} in the team '{team}'"):
        ensure_admin(connection, secret)
    assert find_key(connection, secret) == key


@pytest.mark.parametrize(
    "secret", ["", " ", "sk-my-own-key", "x" * (MIN_SECRET - 1), f"{MINE} {MINE}", MINE + "\u00e4"]
)
def test_a_key_that_is_short_or_fits_no_header_is_refused(connection: Connection, secret: str) -> None:
    with pytest.raises(InvalidInput, match=f"INTERN_API_KEY must have at least {MIN_SECRET} characters"):
        ensure_admin(connection, secret)
    assert list_keys(connection) == []
