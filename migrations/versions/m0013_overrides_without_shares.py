"""Overrides are divided as their limits are

Revision ID: 0013
Revises: 0012

Shares of a client's own must go by cut and raise, which only the version before does. This refuses while there are any.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_STILL_DIVIDED = "SELECT id FROM config_documents WHERE kind = 'client' AND body::jsonb ? 'shares' ORDER BY id LIMIT 5"


def upgrade() -> None:
    clients = op.get_bind().scalars(sa.text(_STILL_DIVIDED)).all()
    if clients:
        raise RuntimeError(
            f"Overrides have no shares of their own any more, and clients still go by some: {', '.join(clients)}. "
            "With the version before, put their overrides without `shares`, wait until `move` in "
            "GET /v1/clients/{client}/limits is null and two windows are over, then migrate."
        )
    op.drop_table("client_stays")
    op.execute("DELETE FROM quota_moves WHERE whose NOT IN ('', '*')")
    op.drop_column("overrides", "shares")
    op.execute("UPDATE schema_support SET works_from = '0013'")


def downgrade() -> None:
    op.execute("UPDATE schema_support SET works_from = '0012'")
    op.add_column("overrides", sa.Column("shares", postgresql.JSONB(), nullable=True))
    op.create_table(
        "client_stays",
        sa.Column("client", sa.Text(collation="C"), nullable=False),
        sa.Column("plan", sa.Text(collation="C"), nullable=False),
        sa.Column("shares", postgresql.JSONB(), nullable=False),
        sa.Column("until", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("client", "plan", name="pk_client_stays"),
    )
    op.create_index("ix_client_stays_until", "client_stays", ["until"])
