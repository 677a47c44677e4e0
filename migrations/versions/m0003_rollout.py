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
    _upgrade_rollouts()
    op.add_column(
        "limits",
        sa.Column(
            "auto_fractions", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
    )
    # new rows say it themselves; the default was for those that were there
    op.alter_column("limits", "auto_fractions", server_default=None)


def _upgrade_rollouts() -> None:
    for column in (
        sa.Column("rollout", sa.BigInteger(), nullable=True),
        sa.Column("stable_revision", sa.BigInteger(), nullable=True),
        sa.Column("stable_digest", sa.Text(collation="C"), nullable=True),
        sa.Column("stage_region", sa.Text(collation="C"), nullable=True),
        sa.Column("stage_node", sa.Text(collation="C"), nullable=True),
        sa.Column("deltas_from", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    ):
        op.add_column("config_head", column)
    op.alter_column("config_head", "deltas_from", server_default=None)
    op.add_column("revisions", sa.Column("stable_digest", sa.Text(collation="C"), nullable=True))
    op.create_table(
        "rollout_policy",
        sa.Column("id", sa.SmallInteger(), nullable=False),
        sa.Column("mode", sa.Text(collation="C"), nullable=False),
        sa.Column("node", sa.Text(collation="C"), nullable=True),
        sa.Column("region", sa.Text(collation="C"), nullable=True),
        *_limits_of_a_rollout(),
        sa.CheckConstraint("id = 1", name=op.f("ck_rollout_policy_one_row")),
        sa.CheckConstraint("mode IN ('immediate', 'canary')", name=op.f("ck_rollout_policy_mode")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout_policy")),
    )
    op.create_table(
        "rollouts",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(collation="C"), nullable=False),
        sa.Column("region", sa.Text(collation="C"), nullable=False),
        sa.Column("node", sa.Text(collation="C"), nullable=False),
        sa.Column("base_revision", sa.BigInteger(), nullable=False),
        sa.Column("stage_revision", sa.BigInteger(), nullable=False),
        sa.Column("released_revision", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("stage_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("acked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(collation="C"), nullable=True),
        *_limits_of_a_rollout(),
        sa.Column("held", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("state IN ('node', 'region', 'done', 'rolled_back')", name=op.f("ck_rollouts_state")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_rollouts")),
    )
    op.create_table(
        "node_reports",
        sa.Column("region", sa.Text(collation="C"), nullable=False),
        sa.Column("node", sa.Text(collation="C"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decisions", sa.BigInteger(), nullable=False),
        sa.Column("denied", sa.BigInteger(), nullable=False),
        sa.Column("degraded", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("region", "node", "at", name=op.f("pk_node_reports")),
    )
    op.create_index(op.f("ix_node_reports_at"), "node_reports", ["at"], unique=False)


def _limits_of_a_rollout() -> list[sa.Column]:
    return [
        sa.Column("node_pause_s", sa.Double(), nullable=False),
        sa.Column("region_pause_s", sa.Double(), nullable=False),
        sa.Column("max_denial_rise", sa.Double(), nullable=False),
        sa.Column("max_degraded_rise", sa.Double(), nullable=False),
        sa.Column("min_decisions", sa.BigInteger(), nullable=False),
    ]


def downgrade() -> None:
    op.drop_column("limits", "auto_fractions")
    op.drop_table("node_reports")
    op.drop_table("rollouts")
    op.drop_table("rollout_policy")
    op.drop_column("revisions", "stable_digest")
    for column in ("rollout", "stable_revision", "stable_digest", "stage_region", "stage_node", "deltas_from"):
        op.drop_column("config_head", column)
    op.drop_table("node_effects")
    op.drop_table("quota_balances")
    op.drop_table("quota_moves")
    op.drop_table("leader")
    op.drop_table("jobs")
