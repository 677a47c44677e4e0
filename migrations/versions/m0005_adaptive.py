"""Backends, adaptive policies, reporters

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C")
JSON = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    op.create_table(
        "adaptive_policies",
        sa.Column("policy", TEXT, nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.PrimaryKeyConstraint("policy", name=op.f("pk_adaptive_policies")),
    )
    # nothing could exist that a limit named until now
    op.execute("UPDATE limits SET adaptive = NULL WHERE adaptive IS NOT NULL")
    op.create_foreign_key(
        op.f("fk_limits_adaptive_adaptive_policies"),
        "limits", "adaptive_policies", ["adaptive"], ["policy"], ondelete="RESTRICT",
    )  # fmt: skip
    op.create_index(op.f("ix_limits_adaptive"), "limits", ["adaptive"], unique=False)
    op.add_column("backends", sa.Column("capacity_limit", sa.BigInteger(), nullable=True))
    op.add_column("backends", sa.Column("capacity_window_us", sa.BigInteger(), nullable=True))
    op.add_column("backends", sa.Column("capacity_burst", sa.BigInteger(), nullable=True))
    op.add_column("backends", sa.Column("capacity_rule_id", sa.BigInteger(), nullable=True))
    op.add_column("backends", sa.Column("capacity_open_rule_id", sa.BigInteger(), nullable=True))
    op.add_column("backends", sa.Column("adaptive", TEXT, nullable=True))
    op.add_column("backends", sa.Column("pulls", JSON, server_default=sa.text("'[]'::jsonb"), nullable=False))
    op.add_column("backends", sa.Column("manual_factor", sa.Float(), nullable=True))
    op.add_column("backends", sa.Column("manual_expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("backends", sa.Column("manual_reason", TEXT, nullable=True))
    op.create_foreign_key(
        op.f("fk_backends_adaptive_adaptive_policies"),
        "backends", "adaptive_policies", ["adaptive"], ["policy"], ondelete="RESTRICT",
    )  # fmt: skip
    op.create_index(op.f("ix_backends_adaptive"), "backends", ["adaptive"], unique=False)
    op.create_table(
        "backend_loads",
        sa.Column("region", TEXT, nullable=False),
        sa.Column("backend", TEXT, nullable=False),
        sa.Column("node", TEXT, nullable=False),
        sa.Column("state", JSON, nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["backend"], ["backends.backend"], name=op.f("fk_backend_loads_backend_backends"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["region"], ["regions.region"], name=op.f("fk_backend_loads_region_regions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("region", "backend", name=op.f("pk_backend_loads")),
    )
    op.create_index(op.f("ix_backend_loads_backend"), "backend_loads", ["backend"], unique=False)
    op.create_table(
        "reporters",
        sa.Column("reporter", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("prefix", TEXT, nullable=False),
        sa.Column("previous_sha256", TEXT, nullable=True),
        sa.Column("previous_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("reporter", name=op.f("pk_reporters")),
        sa.UniqueConstraint("sha256", name=op.f("uq_reporters_sha256")),
    )
    op.create_table(
        "reporter_backends",
        sa.Column("reporter", TEXT, nullable=False),
        sa.Column("backend", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["backend"], ["backends.backend"], name=op.f("fk_reporter_backends_backend_backends"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["reporter"],
            ["reporters.reporter"],
            name=op.f("fk_reporter_backends_reporter_reporters"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("reporter", "backend", name=op.f("pk_reporter_backends")),
    )
    op.create_index(op.f("ix_reporter_backends_backend"), "reporter_backends", ["backend"], unique=False)


def downgrade() -> None:
    op.drop_table("reporter_backends")
    op.drop_table("reporters")
    op.drop_table("backend_loads")
    op.drop_index(op.f("ix_backends_adaptive"), table_name="backends")
    op.drop_constraint(op.f("fk_backends_adaptive_adaptive_policies"), "backends", type_="foreignkey")
    for column in (
        "manual_reason", "manual_expires_at", "manual_factor", "pulls", "adaptive", "capacity_open_rule_id",
        "capacity_rule_id", "capacity_burst", "capacity_window_us", "capacity_limit",
    ):  # fmt: skip
        op.drop_column("backends", column)
    op.drop_index(op.f("ix_limits_adaptive"), table_name="limits")
    op.drop_constraint(op.f("fk_limits_adaptive_adaptive_policies"), "limits", type_="foreignkey")
    op.drop_table("adaptive_policies")
