"""The Hugging Face hub: repositories come onto this machine whole and checked, into the cache that all libraries read.

The transfer is ours: huggingface_hub does not resume what an earlier process began. Everything here runs on the
caller's thread; nothing else in the core imports it at its top, as it brings huggingface_hub.
"""

from yapit.hub.cache import CachedRepository, CachedRevision, cached, delete, discard
from yapit.hub.choosing import holds_weights, without_copies, without_foreign
from yapit.hub.contents import Patience
from yapit.hub.planning import plan
from yapit.hub.progress import Progress
from yapit.hub.refusals import HTTPError, is_repo_id, line, refusal
from yapit.hub.repositories import File, Kind, Plan, Repository
from yapit.hub.snapshots import here, small_files, snapshot
from yapit.hub.transfers import fetch

__all__ = [
    "CachedRepository",
    "CachedRevision",
    "File",
    "HTTPError",
    "Kind",
    "Patience",
    "Plan",
    "Progress",
    "Repository",
    "cached",
    "delete",
    "discard",
    "fetch",
    "here",
    "holds_weights",
    "is_repo_id",
    "line",
    "plan",
    "refusal",
    "small_files",
    "snapshot",
    "without_copies",
    "without_foreign",
]
