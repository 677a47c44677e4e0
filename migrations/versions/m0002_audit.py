"""Audit log and what replays need

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text(collation="C")
TIME = sa.DateTime(timezone=True)

# PG_CONTEXT is the stack of calls, which no session setting can forge: deleting is left to audit_log_retain alone.
APPEND_ONLY = r"""
CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    callers text;
BEGIN
    GET DIAGNOSTICS callers = PG_CONTEXT;
    IF TG_OP = 'DELETE' AND callers ~ 'function audit_log_retain\(' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END $$
"""
RETAIN = """
CREATE FUNCTION audit_log_retain(older_than timestamptz, most bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    removed bigint;
BEGIN
    IF older_than > now() - interval '30 days' THEN
        RAISE EXCEPTION 'the audit log keeps at least 30 days' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM audit_log WHERE id IN (SELECT id FROM audit_log WHERE at < older_than ORDER BY at LIMIT most);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$
"""
ROWS_STAY = """
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE ON audit_log
FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only()
"""
TABLE_STAYS = """
CREATE TRIGGER table_stays BEFORE TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()
"""


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("author", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=True),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("resource", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("request_id", TEXT, nullable=True),
        sa.Column("address", TEXT, nullable=True),
        sa.Column("before", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("after", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_at"), "audit_log", ["at"], unique=False)
    op.create_index(op.f("ix_audit_log_revision"), "audit_log", ["revision"], unique=False)
    op.create_index("ix_audit_log_author", "audit_log", ["author", "id"], unique=False)
    op.create_index("ix_audit_log_resource", "audit_log", ["resource", "name", "id"], unique=False)
    for statement in (APPEND_ONLY, RETAIN, ROWS_STAY, TABLE_STAYS):
        op.execute(statement)

    op.create_table(
        "replays",
        sa.Column("author", TEXT, nullable=False),
        sa.Column("idempotency_key", TEXT, nullable=False),
        sa.Column("request_sha256", TEXT, nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("headers", postgresql.JSONB(), nullable=False),
        sa.Column("body", TEXT, nullable=True),
        sa.Column("made", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("author", "idempotency_key", name=op.f("pk_replays")),
    )
    op.create_index(op.f("ix_replays_created_at"), "replays", ["created_at"], unique=False)
    # the table above does this for every POST
    op.drop_index("uq_keys_idempotency_key", table_name="keys")
    op.drop_column("keys", "idempotency_key")

    op.add_column("keys", sa.Column("last_used_at", TIME, nullable=True))
    op.add_column("tokens", sa.Column("last_used_at", TIME, nullable=True))
    op.add_column("tokens", sa.Column("previous_sha256", TEXT, nullable=True))
    op.add_column("tokens", sa.Column("previous_expires_at", TIME, nullable=True))
    op.create_unique_constraint(op.f("uq_tokens_previous_sha256"), "tokens", ["previous_sha256"])
    op.add_column("regions", sa.Column("previous_public_key", TEXT, nullable=True))
    op.add_column("regions", sa.Column("previous_credential_sha256", TEXT, nullable=True))
    op.add_column("regions", sa.Column("previous_expires_at", TIME, nullable=True))
    op.create_unique_constraint(
        op.f("uq_regions_previous_credential_sha256"), "regions", ["previous_credential_sha256"]
    )


def downgrade() -> None:
    for column in ("previous_expires_at", "previous_credential_sha256", "previous_public_key"):
        op.drop_column("regions", column)
    for column in ("previous_expires_at", "previous_sha256", "last_used_at"):
        op.drop_column("tokens", column)
    op.drop_column("keys", "last_used_at")
    op.add_column("keys", sa.Column("idempotency_key", TEXT, nullable=True))
    op.create_index(
        "uq_keys_idempotency_key",
        "keys",
        ["client", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.drop_table("replays")
    op.drop_table("audit_log")
    op.execute("DROP FUNCTION audit_log_retain")
    op.execute("DROP FUNCTION audit_log_is_append_only")
