"""Nodes and agents of a region

Revision ID: 0014
Revises: 0013

A replica of the version before takes an agent for one more node.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nodes", sa.Column("role", sa.Text(collation="C"), server_default="node", nullable=False))
    op.create_check_constraint("role", "nodes", "role IN ('node', 'agent')")


def downgrade() -> None:
    op.drop_column("nodes", "role")
