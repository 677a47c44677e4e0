"""What nodes were sent of a roll-out, and since when they are connected

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nodes", sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("nodes", sa.Column("staged_revision", sa.BigInteger(), nullable=True))
    op.add_column("nodes", sa.Column("staged_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for column in ("staged_at", "staged_revision", "opened_at"):
        op.drop_column("nodes", column)
