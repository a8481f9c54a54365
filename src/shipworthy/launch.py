"""What a process of ours is told to begin with. Known to whoever starts it, who loads nothing of what it will run."""

from __future__ import annotations

from msgspec import Struct

from shipworthy.adapters.providers.reach import ModelServer


class Launch(Struct, frozen=True, tag=True):
    """All that a process needs to begin."""

    name: str  # "worker 1": how its log calls it
    config: str
    texts: dict[str, bytes]  # what the manifest's files held when it was put in force
    process_id: str
    store_url: str
    models: dict[str, ModelServer]
    metrics_path: str

    def __repr__(self) -> str:  # the store's URL and the texts hold secrets
        return f"Launch({self.name}, {self.process_id})"
