"""The first schema

Revision ID: 0001
Revises: nothing
"""

from hashlib import sha256

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(sa.Sequence("limit_rule_ids")))
    op.create_table(
        "backends",
        sa.Column("backend", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("backend", name=op.f("pk_backends")),
    )
    op.create_table(
        "config_buckets",
        sa.Column("bucket", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("bucket", name=op.f("pk_config_buckets")),
    )
    op.create_table(
        "config_documents",
        sa.Column("kind", sa.Text(collation="C"), nullable=False),
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("body", sa.Text(collation="C"), nullable=True),
        sa.Column("hash", sa.LargeBinary(), nullable=True),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "id", name=op.f("pk_config_documents")),
    )
    op.create_index(op.f("ix_config_documents_bucket"), "config_documents", ["bucket"], unique=False)
    op.create_index(op.f("ix_config_documents_revision"), "config_documents", ["revision"], unique=False)
    op.create_table(
        "config_head",
        sa.Column("id", sa.SmallInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(collation="C"), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_config_head_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_config_head")),
    )
    op.create_table(
        "nodes",
        sa.Column("region", sa.Text(collation="C"), nullable=False),
        sa.Column("node", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.Text(collation="C"), nullable=False),
        sa.Column("applied_revision", sa.BigInteger(), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refused_revision", sa.BigInteger(), nullable=True),
        sa.Column("refused_reason", sa.Text(collation="C"), nullable=True),
        sa.Column("stream", sa.Text(collation="C"), nullable=True),
        sa.Column("last_seen", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("region", "node", name=op.f("pk_nodes")),
    )
    op.create_index(op.f("ix_nodes_stream"), "nodes", ["stream"], unique=False)
    op.create_table(
        "plans",
        sa.Column("plan", sa.Text(collation="C"), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("plan", name=op.f("pk_plans")),
    )
    op.create_table(
        "regions",
        sa.Column("region", sa.Text(collation="C"), nullable=False),
        sa.Column("peer_url", sa.Text(collation="C"), nullable=True),
        sa.Column("public_key", sa.Text(collation="C"), nullable=True),
        sa.Column("credential_sha256", sa.Text(collation="C"), nullable=True),
        sa.PrimaryKeyConstraint("region", name=op.f("pk_regions")),
        sa.UniqueConstraint("credential_sha256", name=op.f("uq_regions_credential_sha256")),
    )
    op.create_table(
        "revisions",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("author", sa.Text(collation="C"), nullable=False),
        sa.Column("reason", sa.Text(collation="C"), nullable=True),
        sa.Column("digest", sa.Text(collation="C"), nullable=False),
        sa.Column("signature", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_revisions")),
    )
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("role", sa.Text(collation="C"), nullable=False),
        sa.Column("sha256", sa.Text(collation="C"), nullable=False),
        sa.Column("prefix", sa.Text(collation="C"), nullable=True),
        sa.Column("dialect", sa.Text(collation="C"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'admin', 'gateway')", name=op.f("ck_tokens_role")),
        sa.PrimaryKeyConstraint("token_id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("sha256", name=op.f("uq_tokens_sha256")),
    )
    op.create_index(
        "uq_tokens_live_name", "tokens", ["name"], unique=True, postgresql_where=sa.text("revoked_at IS NULL")
    )
    op.create_table(
        "clients",
        sa.Column("client", sa.Text(collation="C"), nullable=False),
        sa.Column("plan", sa.Text(collation="C"), nullable=False),
        sa.Column("status", sa.Text(collation="C"), nullable=False),
        sa.Column("attributes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("external_id", sa.Text(collation="C"), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("status IN ('active', 'suspended')", name=op.f("ck_clients_status")),
        sa.ForeignKeyConstraint(["plan"], ["plans.plan"], name=op.f("fk_clients_plan_plans"), ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("client", name=op.f("pk_clients")),
    )
    op.create_index(op.f("ix_clients_external_id"), "clients", ["external_id"], unique=False)
    op.create_index(op.f("ix_clients_plan"), "clients", ["plan"], unique=False)
    op.create_table(
        "endpoints",
        sa.Column("endpoint", sa.Text(collation="C"), nullable=False),
        sa.Column("method", sa.Text(collation="C"), nullable=False),
        sa.Column("path", sa.Text(collation="C"), nullable=False),
        sa.Column("shape", sa.Text(collation="C"), nullable=False),
        sa.Column("backend", sa.Text(collation="C"), nullable=True),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("exempt", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["backend"], ["backends.backend"], name=op.f("fk_endpoints_backend_backends"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("endpoint", name=op.f("pk_endpoints")),
        sa.UniqueConstraint("shape", name=op.f("uq_endpoints_shape")),
    )
    op.create_index(op.f("ix_endpoints_backend"), "endpoints", ["backend"], unique=False)
    op.create_table(
        "limits",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("rule_id", sa.BigInteger(), nullable=False),
        sa.Column("plan", sa.Text(collation="C"), nullable=True),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("scope", sa.Text(collation="C"), nullable=False),
        sa.Column("algorithm", sa.Text(collation="C"), nullable=False),
        sa.Column("limit", sa.BigInteger(), nullable=False),
        sa.Column("window_us", sa.BigInteger(), nullable=True),
        sa.Column("calendar", sa.Text(collation="C"), nullable=True),
        sa.Column("anchor_us", sa.BigInteger(), nullable=False),
        sa.Column("burst", sa.BigInteger(), nullable=True),
        sa.Column("match_methods", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("match_attributes", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("mode", sa.Text(collation="C"), nullable=False),
        sa.Column("on_store_failure", sa.Text(collation="C"), nullable=False),
        sa.Column("shadow", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("adaptive", sa.Text(collation="C"), nullable=True),
        sa.Column("headline", sa.Boolean(), nullable=False),
        sa.Column("visible", sa.Boolean(), nullable=True),
        sa.Column("auto_shares", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["plan"], ["plans.plan"], name=op.f("fk_limits_plan_plans"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_limits")),
        sa.UniqueConstraint("rule_id", name=op.f("uq_limits_rule_id")),
    )
    op.create_index("uq_limits_plan_name", "limits", ["plan", "name"], unique=True, postgresql_nulls_not_distinct=True)
    op.create_table(
        "keys",
        sa.Column("key_id", sa.Text(collation="C"), nullable=False),
        sa.Column("client", sa.Text(collation="C"), nullable=False),
        sa.Column("sha256", sa.Text(collation="C"), nullable=False),
        sa.Column("prefix", sa.Text(collation="C"), nullable=True),
        sa.Column("name", sa.Text(collation="C"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("idempotency_key", sa.Text(collation="C"), nullable=True),
        sa.ForeignKeyConstraint(
            ["client"], ["clients.client"], name=op.f("fk_keys_client_clients"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_keys_sha256")),
    )
    op.create_index(op.f("ix_keys_client"), "keys", ["client"], unique=False)
    op.create_index(op.f("ix_keys_prefix"), "keys", ["prefix"], unique=False)
    op.create_index(
        "uq_keys_idempotency_key",
        "keys",
        ["client", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "limit_endpoints",
        sa.Column("limit_id", sa.BigInteger(), nullable=False),
        sa.Column("endpoint", sa.Text(collation="C"), nullable=False),
        sa.ForeignKeyConstraint(
            ["endpoint"],
            ["endpoints.endpoint"],
            name=op.f("fk_limit_endpoints_endpoint_endpoints"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["limit_id"], ["limits.id"], name=op.f("fk_limit_endpoints_limit_id_limits"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("limit_id", "endpoint", name=op.f("pk_limit_endpoints")),
    )
    op.create_index(op.f("ix_limit_endpoints_endpoint"), "limit_endpoints", ["endpoint"], unique=False)
    op.create_table(
        "limit_shares",
        sa.Column("limit_id", sa.BigInteger(), nullable=False),
        sa.Column("region", sa.Text(collation="C"), nullable=False),
        sa.Column("fraction", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["limit_id"], ["limits.id"], name=op.f("fk_limit_shares_limit_id_limits"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["region"], ["regions.region"], name=op.f("fk_limit_shares_region_regions"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("limit_id", "region", name=op.f("pk_limit_shares")),
    )
    op.create_index(op.f("ix_limit_shares_region"), "limit_shares", ["region"], unique=False)
    op.create_table(
        "overrides",
        sa.Column("client", sa.Text(collation="C"), nullable=False),
        sa.Column("limit_name", sa.Text(collation="C"), nullable=False),
        sa.Column("limit", sa.BigInteger(), nullable=False),
        sa.Column("burst", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["client"], ["clients.client"], name=op.f("fk_overrides_client_clients"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("client", "limit_name", name=op.f("pk_overrides")),
    )
    # Revision 0 is the configuration with no document: its digest is SHA-256 of nothing.
    head = sa.table("config_head", sa.column("id"), sa.column("revision"), sa.column("digest"))
    op.execute(head.insert().values(id=1, revision=0, digest=sha256().hexdigest()))


def downgrade() -> None:
    op.drop_table("overrides")
    op.drop_table("limit_shares")
    op.drop_table("limit_endpoints")
    op.drop_table("keys")
    op.drop_table("limits")
    op.drop_table("endpoints")
    op.drop_table("clients")
    op.drop_table("tokens")
    op.drop_table("revisions")
    op.drop_table("regions")
    op.drop_table("plans")
    op.drop_table("nodes")
    op.drop_table("config_head")
    op.drop_table("config_documents")
    op.drop_table("config_buckets")
    op.drop_table("backends")
    op.execute(sa.schema.DropSequence(sa.Sequence("limit_rule_ids")))
