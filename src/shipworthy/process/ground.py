"""What the server stands on, owned by the supervisor: PostgreSQL, its schema, the key file, and the local models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from shipworthy.adapters.embedded.llama import LlamaChild, LlamaSettings, State
from shipworthy.adapters.embedded.postgres import EmbeddedPostgres
from shipworthy.adapters.providers.llama_cpp import LlamaCppConfig
from shipworthy.adapters.providers.reach import ModelServer
from shipworthy.manifest.load import Loaded
from shipworthy.model.errors import StartRefused
from shipworthy.model.observation import Lifecycle
from shipworthy.model.op import Observe

Progress = Callable[[str], None]


class Ground:
    """Brought up before any process, looked after while they run, taken down last. Blocking: called in a thread."""

    def __init__(self, loaded: Loaded, *, migrate: bool, observe: Observe, progress: Progress) -> None:
        self._loaded = loaded
        self._migrate = migrate
        self._observe = observe
        self._progress = progress
        self._postgres: EmbeddedPostgres | None = None
        self._children: dict[str, LlamaChild] = {}
        self._servers: dict[str, ModelServer] = {}
        self._settings: dict[str, LlamaSettings] = {}
        self._told: dict[str, State] = {}
        self.store_url = ""

    def up(self) -> None:
        """Raises StartRefused; ``down`` undoes what was done."""
        store = self._loaded.deployment.store
        if store.path is not None:
            self._postgres = EmbeddedPostgres(store.path, progress=self._progress)
            cluster = self._postgres.start()
            self.store_url = cluster.url
            from shipworthy.adapters.store.migrate import apply, login_of  # loaded while PostgreSQL starts

            apply(cluster.migrate_url, login_of(cluster.url), progress=self._progress)
        else:
            assert store.url is not None
            self.store_url = store.url.reveal()
            self._managed(store.migrate_url.reveal() if store.migrate_url else "")
        from shipworthy.adapters.store.lost_keys import refuse_lost_keys

        refuse_lost_keys(self.store_url, self._loaded.deployment.keys_file)
        self.prepare(self._loaded)

    def _managed(self, migrate_url: str) -> None:
        """A managed store is migrated only when asked; a schema that is behind refuses the start."""
        from shipworthy.adapters.store.migrate import apply, login_of, plan

        if self._migrate:
            if not migrate_url:
                raise StartRefused(
                    "store.migrate_url", "--migrate needs store.migrate_url", "set it to the URL of the schema's owner"
                )
            apply(migrate_url, login_of(self.store_url), progress=self._progress)
        elif migrate_url and (pending := plan(migrate_url).pending):
            names = ", ".join(migration.name for migration in pending)
            raise StartRefused(
                "store.schema_behind", f"the schema lacks {names}", "run `shipworthy serve --migrate` once"
            )

    async def check(self) -> Sequence[str]:
        """Raises StartRefused, in words, for a store that no process could work with; the workers that hold something in it.

        Its months are made, so that nothing is recorded outside of them.
        """
        from shipworthy.adapters.store.assertions import assert_store
        from shipworthy.adapters.store.holders import holders
        from shipworthy.adapters.store.months import prepare_months
        from shipworthy.adapters.store.pool import Store

        async def asked(store: Store) -> Sequence[str]:
            await prepare_months(store)  # before the first row comes
            return await holders(store)

        async with Store(self.store_url) as store:
            asking = asyncio.create_task(asked(store))
            try:
                await assert_store(store)
                return await asking
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

    def prepare(self, loaded: Loaded) -> None:
        """Starts the local models that ``loaded`` names and does not have yet. Raises StartRefused."""
        for provider in loaded.snapshot.providers.values():
            if isinstance(provider.settings, LlamaCppConfig):
                settings = _settings_of(provider.settings)
                if self._settings.get(provider.name, settings) != settings:
                    what = f"the local model of provider {provider.name} can't change while the server runs; restart it"
                    raise refused(f"{what}, or name another provider")
                if provider.name not in self._children:
                    self._load(provider.name, settings)

    def _load(self, name: str, settings: LlamaSettings) -> None:
        child = LlamaChild(settings, progress=self._progress)
        endpoint = child.start()
        self._children[name] = child
        self._settings[name] = settings
        self._servers[name] = ModelServer(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key,
            default_stop=endpoint.default_stop,
        )

    def model_servers(self) -> dict[str, ModelServer]:
        return self._servers

    def look(self) -> None:
        """Starts again what has died. The database keeps its socket and passwords, a model its port and key."""
        for name, child in self._children.items():
            try:
                state = child.poll()
            except OSError as reason:  # no process is to be had at the moment: the next look tries again
                self._observe(Lifecycle(f"model {name}", "refused", str(reason)))
                continue
            self._tell(name, state)
        if self._postgres is not None and not self._postgres.alive():
            self._observe(Lifecycle("postgres", "died", "starting it again"))
            try:
                self._postgres.start()
            except (StartRefused, OSError) as refused:
                self._observe(Lifecycle("postgres", "refused", str(refused)))
            else:
                self._observe(Lifecycle("postgres", "ready", "recovered"))

    def _tell(self, name: str, state: State) -> None:
        """Each death once, and that none follows: a model that has failed for good answers nobody any more."""
        told = self._told.get(name)
        self._told[name] = state
        deaths, phase = (told.deaths, told.phase) if told else (0, "ready")
        if state.deaths > deaths or (state.phase == "failed" != phase):
            word = "failed" if state.phase == "failed" else "died"
            self._observe(Lifecycle(f"model {name}", word, str(state.reason)))
        elif state.phase == "ready" != phase:
            self._observe(Lifecycle(f"model {name}", "ready", "loaded again"))

    def down(self) -> None:
        for child in self._children.values():
            child.stop()
        if self._postgres is not None:
            self._postgres.stop()


def _settings_of(said: LlamaCppConfig) -> LlamaSettings:
    return LlamaSettings(
        path=said.path,
        framing=said.framing,
        context_tokens=said.context_tokens,
        threads=said.threads,
        parallel=said.parallel,
        embeddings=said.embeddings,
        share_prefixes=said.share_prefixes,
    )


def refused(what: str) -> StartRefused:
    return StartRefused("server.start", what)


def state_folder(loaded: Loaded) -> Path:
    """Where the deployment keeps its own small files: beside its keys."""
    return loaded.deployment.keys_file.parent
