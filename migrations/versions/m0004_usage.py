"""Usage, blocks, enforcement

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PARTS_SCHEMA = "usage_parts"


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(collation="C"), nullable=null)


def _time(name: str, *, null: bool = False, now: bool = False) -> sa.Column[sa.DateTime]:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null, server_default=default)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _figures() -> list[sa.Column[int]]:
    return [_number(name) for name in ("allowed", "denied", "shadow_denied", "cost", "denied_cost")]


def upgrade() -> None:
    # partitions are made as time goes on, in a schema that no migration looks into
    op.execute(f"CREATE SCHEMA {PARTS_SCHEMA}")
    op.create_table(
        "usage_hourly",
        *(_text(name) for name in ("client", "plan", "limit_name", "endpoint", "region", "key_id")),
        _time("hour"),
        *_figures(),
        sa.PrimaryKeyConstraint(
            "client", "hour", "plan", "limit_name", "endpoint", "region", "key_id", name=op.f("pk_usage_hourly")
        ),
        postgresql_partition_by="RANGE (hour)",
    )
    op.create_index("ix_usage_hourly_limit", "usage_hourly", ["plan", "limit_name", "hour"])
    op.create_table(
        "usage_daily",
        *(_text(name) for name in ("client", "plan", "limit_name", "endpoint", "region", "key_id")),
        sa.Column("day", sa.Date(), nullable=False),
        *_figures(),
        sa.PrimaryKeyConstraint(
            "client", "day", "plan", "limit_name", "endpoint", "region", "key_id", name=op.f("pk_usage_daily")
        ),
        postgresql_partition_by="RANGE (day)",
    )
    op.create_index("ix_usage_daily_limit", "usage_daily", ["plan", "limit_name", "day"])
    op.create_table(
        "usage_totals",
        *(_text(name) for name in ("plan", "limit_name", "endpoint", "region")),
        _time("hour"),
        *_figures(),
        sa.PrimaryKeyConstraint("hour", "plan", "limit_name", "endpoint", "region", name=op.f("pk_usage_totals")),
        postgresql_partition_by="RANGE (hour)",
    )
    op.create_table(
        "usage_days",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("stale", sa.Boolean(), nullable=False),
        _time("rolled_up_at", null=True),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_usage_days")),
    )
    op.create_table(
        "usage_sources",
        *(_text(name) for name in ("region", "node", "incarnation")),
        _number("sequence"),
        _number("lost_batches"),
        _time("seen_at", now=True),
        sa.PrimaryKeyConstraint("region", "node", "incarnation", name=op.f("pk_usage_sources")),
    )
    op.create_index(op.f("ix_usage_sources_seen_at"), "usage_sources", ["seen_at"])
    op.create_table(
        "usage_regions",
        _text("region"),
        _time("complete_until", null=True),
        _time("shipped_at", now=True),
        sa.PrimaryKeyConstraint("region", name=op.f("pk_usage_regions")),
    )
    _create_webhooks()
    op.create_table(
        "blocks",
        _text("block"),
        *(_text(name, null=True) for name in ("client", "key_id", "network", "endpoint", "reason")),
        _text("reason_class"),
        _time("expires_at", null=True),
        _time("created_at", now=True),
        sa.CheckConstraint("num_nonnulls(client, key_id, network, endpoint) = 1", name=op.f("ck_blocks_one_subject")),
        sa.PrimaryKeyConstraint("block", name=op.f("pk_blocks")),
    )
    op.create_index(
        "ix_blocks_expires_at", "blocks", ["expires_at"], postgresql_where=sa.text("expires_at IS NOT NULL")
    )
    op.create_table(
        "enforcement",
        _text("target"),
        _text("mode"),
        _text("reason", null=True),
        _time("expires_at", null=True),
        _time("set_at", now=True),
        sa.CheckConstraint("mode IN ('enforce', 'shadow')", name=op.f("ck_enforcement_mode")),
        sa.PrimaryKeyConstraint("target", name=op.f("pk_enforcement")),
    )


def _create_webhooks() -> None:
    op.create_table(
        "usage_webhooks",
        _text("webhook"),
        _text("url"),
        _text("plan", null=True),
        _text("client", null=True),
        sa.Column("thresholds", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        _text("salt"),
        _time("created_at", now=True),
        sa.PrimaryKeyConstraint("webhook", name=op.f("pk_usage_webhooks")),
    )
    op.create_table(
        "usage_alerts",
        *(_text(name) for name in ("alert", "webhook", "client", "plan", "limit_name")),
        _time("window_start"),
        *(_number(name) for name in ("percent", "used", "limit", "attempts")),
        _time("created_at", now=True),
        _time("due_at", null=True),
        _time("delivered_at", null=True),
        _text("error", null=True),
        sa.PrimaryKeyConstraint("alert", name=op.f("pk_usage_alerts")),
    )
    op.create_index(op.f("ix_usage_alerts_created_at"), "usage_alerts", ["created_at"])
    op.create_index("ix_usage_alerts_due", "usage_alerts", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL"))
    op.create_index(
        "uq_usage_alerts_once",
        "usage_alerts",
        ["webhook", "client", "plan", "limit_name", "window_start", "percent"],
        unique=True,
    )


def downgrade() -> None:
    for table in (
        "enforcement",
        "blocks",
        "usage_alerts",
        "usage_webhooks",
        "usage_regions",
        "usage_sources",
        "usage_days",
        "usage_totals",
        "usage_daily",
        "usage_hourly",
    ):
        op.drop_table(table)
    op.execute(f"DROP SCHEMA {PARTS_SCHEMA}")
