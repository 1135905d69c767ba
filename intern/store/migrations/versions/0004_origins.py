"""What the examples of a dataset were before redaction, as a hash: one that was changed since is another example."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dataset_items", sa.Column("origin", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("dataset_items", "origin")
