"""What holds when a temporary override ends

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("overrides", sa.Column("then_limit", sa.BigInteger(), nullable=True))
    op.add_column("overrides", sa.Column("then_burst", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("overrides", "then_burst")
    op.drop_column("overrides", "then_limit")
