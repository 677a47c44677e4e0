"""How much a strict limit may be overdrawn

Revision ID: 0010
Revises: 0009

A replica of the version before writes limits without it: they have none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("limits", sa.Column("overdraft_percent", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("limits", "overdraft_percent")
