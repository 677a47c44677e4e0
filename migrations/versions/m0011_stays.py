"""What clients had of plans that they left

Revision ID: 0011
Revises: 0010

A replica of the version before keeps none: who leaves a plan by it returns to it as one who was never there.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "client_stays",
        sa.Column("client", sa.Text(collation="C"), nullable=False),
        sa.Column("plan", sa.Text(collation="C"), nullable=False),
        sa.Column("shares", postgresql.JSONB(), nullable=False),
        sa.Column("until", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("client", "plan", name="pk_client_stays"),
    )
    op.create_index("ix_client_stays_until", "client_stays", ["until"])


def downgrade() -> None:
    op.drop_table("client_stays")
