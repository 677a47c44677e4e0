"""Which versions of the control plane the schema serves

Revision ID: 0006
Revises: 0005

A later migration that takes something away, or gives it another meaning, says so with
``UPDATE schema_support SET works_from = '<its own id>'``, and takes that back in its downgrade.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "schema_support",
        sa.Column("id", sa.SmallInteger(), nullable=False),
        sa.Column("works_from", sa.Text(collation="C"), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_schema_support_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schema_support")),
    )
    op.execute("INSERT INTO schema_support (id, works_from) VALUES (1, '0006')")


def downgrade() -> None:
    op.drop_table("schema_support")
