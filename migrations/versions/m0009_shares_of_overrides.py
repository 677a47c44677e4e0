"""Shares of a client's own, and where their moves stand

Revision ID: 0009
Revises: 0008

The version before would publish clients without their shares, and take a client's move for that of the limit.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("overrides", sa.Column("shares", postgresql.JSONB(), nullable=True))
    op.add_column("quota_moves", sa.Column("whose", sa.Text(collation="C"), server_default="", nullable=False))
    op.drop_constraint("pk_quota_moves", "quota_moves")
    op.create_primary_key("pk_quota_moves", "quota_moves", ["rule_id", "whose"])
    op.execute("UPDATE schema_support SET works_from = '0009'")


def downgrade() -> None:
    op.execute("UPDATE schema_support SET works_from = '0006'")
    op.execute("DELETE FROM quota_moves WHERE whose <> ''")
    op.drop_constraint("pk_quota_moves", "quota_moves")
    op.create_primary_key("pk_quota_moves", "quota_moves", ["rule_id"])
    op.drop_column("quota_moves", "whose")
    op.drop_column("overrides", "shares")
