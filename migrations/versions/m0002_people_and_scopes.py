"""People of an OpenID Connect provider, and roles for some clients only

Revision ID: 0002
Revises: 0001

A scoped token has the role ``scoped``, which the version before knows nothing of: there it allows nothing.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE tokens ADD COLUMN scoped_grant JSONB
;
ALTER TABLE tokens DROP CONSTRAINT ck_tokens_role
;
ALTER TABLE tokens ADD CONSTRAINT ck_tokens_role CHECK (role IN ('viewer', 'operator', 'admin', 'gateway', 'scoped'))
;
ALTER TABLE tokens ADD CONSTRAINT ck_tokens_scoped_grant CHECK ((role = 'scoped') = (scoped_grant IS NOT NULL))
;
ALTER TABLE console_sessions ADD COLUMN person JSONB
;
ALTER TABLE console_sessions ALTER COLUMN token_id DROP NOT NULL, ALTER COLUMN token_sha256 DROP NOT NULL
;
ALTER TABLE console_sessions
    ADD CONSTRAINT ck_console_sessions_token CHECK ((token_id IS NULL) = (token_sha256 IS NULL)),
    ADD CONSTRAINT ck_console_sessions_person CHECK ((token_id IS NULL) = (person IS NOT NULL))
"""
# Scoped tokens end, and stay as a record; people log in again once this is there again.
DOWNGRADE = """
DELETE FROM console_sessions WHERE person IS NOT NULL
;
ALTER TABLE console_sessions DROP CONSTRAINT ck_console_sessions_person, DROP CONSTRAINT ck_console_sessions_token
;
ALTER TABLE console_sessions ALTER COLUMN token_id SET NOT NULL, ALTER COLUMN token_sha256 SET NOT NULL
;
ALTER TABLE console_sessions DROP COLUMN person
;
ALTER TABLE tokens DROP CONSTRAINT ck_tokens_scoped_grant, DROP CONSTRAINT ck_tokens_role
;
UPDATE tokens SET role = 'viewer', revoked_at = coalesce(revoked_at, now()) WHERE role = 'scoped'
;
ALTER TABLE tokens ADD CONSTRAINT ck_tokens_role CHECK (role IN ('viewer', 'operator', 'admin', 'gateway'))
;
ALTER TABLE tokens DROP COLUMN scoped_grant
"""


def upgrade() -> None:
    for statement in UPGRADE.split("\n;\n"):
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE.split("\n;\n"):
        op.execute(statement)
