"""The schema

Revision ID: 0001
Revises: nothing

Its statements are in the directory beside it, a paragraph each. A later migration that takes something away, or
gives it another meaning, says so with ``UPDATE schema_support SET works_from = '<its own id>'``, and takes that back
in its downgrade.
"""

import re
from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

FILES = ("configuration", "credentials", "publishing", "usage", "operation")


def _statements() -> list[str]:
    directory = Path(__file__).with_name("m0001")
    text = "\n\n".join((directory / f"{name}.sql").read_text(encoding="utf-8").strip() for name in FILES)
    return [paragraph for paragraph in text.split("\n\n") if paragraph.endswith(";")]


def upgrade() -> None:
    for statement in _statements():
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    tables = re.findall(r"^CREATE TABLE (\w+)", "\n".join(_statements()), re.MULTILINE)
    op.execute(f"DROP TABLE {', '.join(tables)}")
    op.execute("DROP SCHEMA usage_parts")
    op.execute("DROP SEQUENCE limit_rule_ids")
    op.execute("DROP FUNCTION audit_log_retain")
    op.execute("DROP FUNCTION audit_log_is_append_only")
