"""The tables, as the newest migration leaves them."""

from sqlalchemy import BigInteger, Column, Double, Integer, MetaData, Table, Text

METADATA = MetaData()
# The names begin alike, as the database may be another application's too.
MODELS = Table(
    "yapit_models",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("entry", Text, nullable=False),  # JSON
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)
GENERATIONS = Table(
    "yapit_generations",
    METADATA,
    Column("name", Text, primary_key=True),  # of what was changed so often
    Column("value", BigInteger, nullable=False),
)
DOWNLOADS = Table(
    "yapit_downloads",
    METADATA,
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
