"""Jobs and roll-outs

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("job", sa.Text(collation="C"), nullable=False),
        sa.Column("replica", sa.Text(collation="C"), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Text(collation="C"), nullable=True),
        sa.Column("detail", sa.Text(collation="C"), nullable=True),
        sa.Column("next_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("runs", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("requested_by", sa.Text(collation="C"), nullable=True),
        sa.CheckConstraint("outcome IN ('done', 'failed')", name=op.f("ck_jobs_outcome")),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_jobs")),
    )
    op.create_table(
        "leader",
        sa.Column("id", sa.SmallInteger(), nullable=False),
        sa.Column("replica", sa.Text(collation="C"), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_leader_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leader")),
    )
    op.create_table(
        "quota_moves",
        sa.Column("rule_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("plan", sa.Text(collation="C"), nullable=True),
        sa.Column("limit_name", sa.Text(collation="C"), nullable=False),
        sa.Column("schedule", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("waiting", sa.Boolean(), nullable=False),
        sa.Column("cut_revision", sa.BigInteger(), nullable=False),
        sa.Column("cut_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("raise_at_us", sa.BigInteger(), nullable=True),
        sa.Column("freed", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("author", sa.Text(collation="C"), nullable=False),
        sa.Column("reason", sa.Text(collation="C"), nullable=True),
        sa.PrimaryKeyConstraint("rule_id", name=op.f("pk_quota_moves")),
    )
    op.create_index(op.f("ix_quota_moves_waiting"), "quota_moves", ["waiting"], unique=False)
    op.create_table(
        "quota_balances",
        sa.Column("rule_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("moved", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(collation="C"), nullable=False),
        sa.Column("demand", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("rule_id", name=op.f("pk_quota_balances")),
    )
    op.create_table(
        "node_effects",
        sa.Column("region", sa.Text(collation="C"), nullable=False),
        sa.Column("node", sa.Text(collation="C"), nullable=False),
        sa.Column("rule_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("from_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("region", "node", "rule_id", name=op.f("pk_node_effects")),
    )
    op.create_index(op.f("ix_node_effects_rule_id"), "node_effects", ["rule_id"], unique=False)
    op.add_column(
        "limits",
        sa.Column(
            "auto_fractions", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
    )
    # new rows say it themselves; the default was for those that were there
    op.alter_column("limits", "auto_fractions", server_default=None)


def downgrade() -> None:
    op.drop_column("limits", "auto_fractions")
    op.drop_table("node_effects")
    op.drop_table("quota_balances")
    op.drop_table("quota_moves")
    op.drop_table("leader")
    op.drop_table("jobs")
