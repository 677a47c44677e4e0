"""Strict limits are not overdrawn any more

Revision ID: 0012
Revises: 0011

The version before reads the column with every limit: its replicas are not ready from then on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("limits", "overdraft_percent")
    op.execute("UPDATE schema_support SET works_from = '0012'")


def downgrade() -> None:
    op.execute("UPDATE schema_support SET works_from = '0009'")
    op.add_column("limits", sa.Column("overdraft_percent", sa.BigInteger(), server_default="0", nullable=False))
