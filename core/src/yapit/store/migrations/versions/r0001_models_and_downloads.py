"""Registered models, and downloads."""

from alembic import op
from sqlalchemy import BigInteger, Column, Double, Integer, Text

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "yapit_models",
        Column("id", Text, primary_key=True),
        Column("entry", Text, nullable=False),
        Column("created_at", Double, nullable=False),
        Column("updated_at", Double, nullable=False),
    )
    generations = op.create_table(
        "yapit_generations",
        Column("name", Text, primary_key=True),
        Column("value", BigInteger, nullable=False),
    )
    op.bulk_insert(generations, [{"name": "models", "value": 0}])
    op.create_table(
        "yapit_downloads",
        Column("id", Text, primary_key=True),
        Column("node", Text, nullable=False, index=True),
        Column("model", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("files_done", Integer, nullable=False),
        Column("files_total", Integer),
        Column("bytes_done", BigInteger, nullable=False),
        Column("bytes_total", BigInteger),
        Column("bytes_per_s", Double, nullable=False),
        Column("eta_s", Double),
        Column("commit", Text),
        Column("message", Text, nullable=False),
        Column("error_code", Text),
        Column("error_status", Integer),
        Column("created_at", Double, nullable=False),
        Column("updated_at", Double, nullable=False),
        Column("finished_at", Double),
    )
