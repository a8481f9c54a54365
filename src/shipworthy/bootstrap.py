"""manifest + adapters → a running worker or control plane. The only file that knows every class.

What outlives a reload (store, ledger, recorder, issuers' keys, fleet, connections) is made once a process; what a snapshot
decides (stages) is made anew from it, so that a request keeps what it began with.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from shipworthy.adapters.identity.development import DevelopmentIssuer, open_development_issuer
from shipworthy.adapters.identity.issuers import Issuers
from shipworthy.adapters.identity.settings import identity_settings
from shipworthy.adapters.leasing.ledger import LeasedLedger
from shipworthy.adapters.leasing.quotas import ProviderQuotas
from shipworthy.adapters.providers.llama_cpp import LlamaCppConfig
from shipworthy.adapters.providers.reach import ModelServer, Reach
from shipworthy.adapters.store.acts import StoreActs
from shipworthy.adapters.store.alerts import StoreAlerts
from shipworthy.adapters.store.assertions import assert_store
from shipworthy.adapters.store.books import StoreBooks
from shipworthy.adapters.store.corrections import StoreCorrections
from shipworthy.adapters.store.costs import StoreCostSums
from shipworthy.adapters.store.exchanges import StoreExchanges
from shipworthy.adapters.store.key_cache import KeyCache
from shipworthy.adapters.store.keyring import Keyring, open_keyring
from shipworthy.adapters.store.keys import StoreKeys
from shipworthy.adapters.store.ledger import LEASES_CHANNEL, PostgresLedger
from shipworthy.adapters.store.listen import listen
from shipworthy.adapters.store.pause_cache import PauseCache
from shipworthy.adapters.store.pauses import CHANNEL as PAUSES_CHANNEL
from shipworthy.adapters.store.pauses import StorePauses
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.recorder import PostgresRecorder
from shipworthy.adapters.store.repeats import StoreRepeats
from shipworthy.adapters.store.spend_watch import StoreSpendWatch
from shipworthy.adapters.store.sweep import StoreSweeper
from shipworthy.adapters.store.vault import Vault
from shipworthy.launch import Launch
from shipworthy.manifest.files import Texts
from shipworthy.manifest.load import Loaded
from shipworthy.model.errors import StartRefused
from shipworthy.model.fleet import Fleet
from shipworthy.model.identity import Credentials, Principal
from shipworthy.model.observation import CircuitChanged, Failed, StoreDegraded
from shipworthy.model.op import Clock, Observe, Op, SystemClock
from shipworthy.model.policy import Snapshot
from shipworthy.model.route import Model, Provider
from shipworthy.ports import AdminAct, AlertPoster, ControlPlane, Live, Upstream
from shipworthy.stages.identify import Identify, make_identify
from shipworthy.stages.path import stages_of
from shipworthy.stages.record import Took
from shipworthy.standard import PROVIDERS
from shipworthy.standard import read_manifest as read_manifest

STORE_LOOK_S = 1.0


def rehearse(loaded: Loaded, models: Mapping[str, ModelServer]) -> None:
    """Builds what every process will build of ``loaded``, and keeps none of it. Raises StartRefused for what cannot be."""
    identity_settings(loaded.deployment.identity, loaded.snapshot.operator_groups)
    development_issuer(loaded)
    for name, provider in loaded.snapshot.providers.items():
        build_upstream(provider, models.get(name))


def store_urls(config: Path) -> tuple[str, str]:
    """URL of the login and of the owner: of a managed store, or of the embedded one that a server runs."""
    store = read_manifest(config).deployment.store
    if store.path is None:
        assert store.url is not None
        return store.url.reveal(), store.migrate_url.reveal() if store.migrate_url else ""
    from shipworthy.adapters.embedded.postgres import attach  # no process that serves needs it

    cluster = attach(store.path)
    if cluster is None:
        raise StartRefused(
            "store.not_running",
            f"the embedded store of {config} is not running",
            "start the server (`shipworthy serve`) beside this command",
        )
    return cluster.url, cluster.migrate_url


class Ground:
    """What a worker and a control plane share: the store, the keys, who may speak."""

    def __init__(self, loaded: Loaded, store_url: str, observe: Observe, clock: Clock) -> None:
        self.clock = clock
        self.observe = observe
        self.store = Store(store_url)
        self.keyring: Keyring = open_keyring(loaded.deployment.keys_file)
        self.keys = StoreKeys(self.store)
        self.key_cache = KeyCache(self.keys, self.keyring.pepper, clock, observe)
        self.issuers = Issuers(clock, observe)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Ground:
        await assert_store(self.store)  # first: what is not open yet need not be closed when it refuses
        await self.store.open()
        self._tasks = [
            asyncio.create_task(self.key_cache.watch()),
            asyncio.create_task(listen(self.store, "shipworthy_keys", self.key_cache.wake, self.observe)),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.issuers.aclose()
        await self.store.close()

    def identify(self, loaded: Loaded, *, across_tenants: bool = False) -> Identify:
        """The identify stage of one snapshot."""
        identity = loaded.deployment.identity
        settings = identity_settings(identity, loaded.snapshot.operator_groups)
        development = development_issuer(loaded)
        tokens = self.issuers.adopt(settings, (development.trusted,) if development else ())
        keys = self.key_cache if identity.service_keys else None
        return make_identify(loaded.snapshot, tokens, keys, across_tenants=across_tenants)


def development_issuer(loaded: Loaded) -> DevelopmentIssuer | None:
    """The deployment's own issuer, where the manifest asks for one."""
    if not loaded.deployment.identity.development_issuer:
        return None
    snapshot = loaded.snapshot
    return open_development_issuer(loaded.deployment.keys_file.parent, snapshot.name, snapshot.environment)


class DataWorker:
    """One worker of the data plane: ``live`` is what new requests begin with."""

    def __init__(self, launch: Launch, loaded: Loaded, ground: Ground, took: Took) -> None:
        self.clock = ground.clock
        self.observe = ground.observe
        self.draining = False
        self.degraded = ""
        self.loaded = loaded
        self._config = Path(launch.config)
        self._ground = ground
        self._took = took
        self._store_away = ""
        self._fleet = Fleet(self.clock.monotonic_ns(), self._circuit_changed)
        self._workers = loaded.deployment.server.workers
        direct = PostgresLedger(ground.store, launch.process_id, strict=self._strict)
        self.ledger = LeasedLedger(direct, self.clock, self.observe, self._strict, lambda: self._workers)
        self._quotas = ProviderQuotas(self.ledger)
        self.vault = Vault(ground.keyring)
        self._recorder = PostgresRecorder(
            ground.store, self.vault, self.observe, worker=launch.process_id, settled=self.ledger.settled
        )
        self.ledger.recorder = self._recorder
        self._repeats = StoreRepeats(ground.store, ground.keyring.repeats_key)
        self.pauses = PauseCache(StorePauses(ground.store), self.clock, self.observe)
        self._reach = Reach(build_upstream)
        self.live = self._build(loaded, launch.models)

    async def run(self) -> None:
        """Looks after the store's health until cancelled."""
        while True:
            try:
                await self._ground.keys.version()
                self._store_away = ""
            except Exception as away:  # noqa: BLE001  # whatever it is: a store that does not answer is not ready
                if not self._store_away:
                    self.observe(StoreDegraded("readiness", repr(away), 0))
                self._store_away = repr(away)
            await asyncio.sleep(STORE_LOOK_S)

    async def close(self) -> None:
        """Commits what is queued, gives every lease back, then ends every connection."""
        await self._recorder.close()
        await self.ledger.close()
        await self._reach.close()

    async def reload(self, texts: Texts, models: Mapping[str, ModelServer]) -> str:
        """Puts the manifest that ``texts`` are in force for new requests; says why not when that cannot be."""
        try:
            loaded = await asyncio.to_thread(read_manifest, self._config, given=texts)
            self.live = self._build(loaded, models)
            self.loaded = loaded
            self._workers = loaded.deployment.server.workers
            self.ledger.recall()  # what they were taken for may have another cap now
        except StartRefused as refused:
            return str(refused)
        except Exception as unforeseen:  # noqa: BLE001  # whatever it is, the manifest in force serves on
            self.observe(Failed.of("reload", unforeseen))
            return type(unforeseen).__name__
        return ""

    def readiness(self) -> tuple[bool, Mapping[str, str]]:
        """Told to anyone who asks: the reasons, with addresses and names in them, stand in the log."""
        issuers = self._ground.issuers.degraded()
        ready = not self.draining and not self._store_away
        soft = self.degraded or issuers
        return ready, {
            "status": "not ready" if not ready else "degraded" if soft else "ready",
            "store": "the store does not answer" if self._store_away else "ok",
            "manifest": "the newest was refused, the last good one is in force" if self.degraded else "ok",
            "issuers": "keys of some are served from the cache" if issuers else "ok",
            "digest": self.live.snapshot.digest,
            "draining": "yes" if self.draining else "no",
        }

    def _build(self, loaded: Loaded, models: Mapping[str, ModelServer]) -> Live:
        stages = stages_of(
            loaded.snapshot,
            identify=self._ground.identify(loaded),
            paused=self.pauses.check,
            ways=self._reach.adopt(loaded.snapshot.providers, models),
            fleet=self._fleet,
            ledger=self.ledger,
            quotas=self._quotas,
            recorder=self._recorder,
            repeats=self._repeats,
            took=self._took,
        )
        return Live(loaded.snapshot, stages)

    def _strict(self) -> bool:
        return self.live.snapshot.strict

    def _circuit_changed(self, model: Model, state: str, reason: str) -> None:
        self.observe(CircuitChanged(provider=model.provider.name, model=model.name, state=state, reason=reason))


def build_upstream(provider: Provider, server: ModelServer | None) -> Upstream:
    """The adapter of one provider; a local model also needs to know where its child answers."""
    build = PROVIDERS[provider.kind].build
    if not isinstance(provider.settings, LlamaCppConfig):
        return build(provider)
    if server is None:
        raise StartRefused("provider.not_running", f"the local model of provider {provider.name} is not running")
    return build(provider, base_url=server.base_url, api_key=server.api_key, default_stop=server.default_stop)


@contextlib.asynccontextmanager
async def launch_worker(launch: Launch, loaded: Loaded, observe: Observe, took: Took) -> AsyncIterator[DataWorker]:
    """A worker, ready to serve; closed on exit with everything queued committed. Raises StartRefused."""
    async with Ground(loaded, launch.store_url, observe, SystemClock()) as ground:
        worker = DataWorker(launch, loaded, ground, took)
        await ground.issuers.first_keys()
        leases = listen(ground.store, LEASES_CHANNEL, worker.ledger.wanted_back, observe)
        pauses = listen(ground.store, PAUSES_CHANNEL, worker.pauses.wake, observe)
        beside = asyncio.gather(worker.run(), worker.ledger.run(), worker.pauses.watch(), leases, pauses)
        try:
            yield worker
        finally:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)
            await worker.close()


class Control:
    """The control plane's process: what admin API, console and command line work with, and the sweeper."""

    def __init__(self, loaded: Loaded, ground: Ground) -> None:
        self.loaded = loaded
        self._ground = ground
        self._identify = ground.identify(loaded, across_tenants=True)
        vault = Vault(ground.keyring)
        self.sweeper = StoreSweeper(ground.store, vault)
        self.repeats = StoreRepeats(ground.store, ground.keyring.repeats_key)
        self.cost_sums = StoreCostSums(ground.store)
        self.alerts = StoreAlerts(ground.store)
        self.spend = StoreSpendWatch(ground.store)
        self.plane = ControlPlane(
            snapshot=self._snapshot,
            identify=self._identified,
            keys=ground.keys,
            acts=StoreActs(ground.store),
            exchanges=StoreExchanges(ground.store, vault),
            pauses=StorePauses(ground.store),
            corrections=StoreCorrections(ground.store),
            books=StoreBooks(ground.store),
            alerts=self.alerts,
            pepper=ground.keyring.pepper,
            cookie_key=ground.keyring.cookie_key,
            clock=ground.clock,
            observe=ground.observe,
        )

    @property
    def poster(self) -> AlertPoster | None:
        """Where the manifest in force has alerts posted."""
        if (webhook := self.loaded.deployment.alerts) is None:
            return None
        from shipworthy.adapters.alerts.webhook import WebhookPoster  # 120 ms: only a manifest with a webhook pays

        return WebhookPoster(webhook.url.reveal(), webhook.secret.reveal(), self._ground.clock)

    async def adopt(self, loaded: Loaded) -> None:
        """Works with a new manifest from now on, and records that it does."""
        self._identify = self._ground.identify(loaded, across_tenants=True)
        self.loaded = loaded
        op = Op.for_job(self._ground.clock, self._ground.observe)
        await self.plane.acts.act(
            AdminAct(
                id=op.id,
                at_unix_ns=op.arrived_unix_ns,
                actor="supervisor",
                act="manifest.reload",
                tenant="",
                target=loaded.snapshot.name,
                facts={"digest": loaded.snapshot.digest},
            )
        )

    def _snapshot(self) -> Snapshot:
        return self.loaded.snapshot

    async def _identified(self, op: Op, credentials: Credentials) -> Principal:
        return await self._identify(op, credentials)


@contextlib.asynccontextmanager
async def launch_control(
    config: Path, store_url: str, observe: Observe, given: Texts | None = None
) -> AsyncIterator[Control]:
    """The control plane over a store that is reached at ``store_url``. Raises StartRefused."""
    loaded = read_manifest(config, given=given)
    async with Ground(loaded, store_url, observe, SystemClock()) as ground:
        yield Control(loaded, ground)


@contextlib.asynccontextmanager
async def control_plane(config: Path, observe: Observe) -> AsyncIterator[ControlPlane]:
    """For the command line: the ports of the control plane, beside a running server or a managed store."""
    url, _ = store_urls(config)
    async with launch_control(config, url, observe) as control:
        yield control.plane


async def store_clock(config: Path) -> float:
    """The store's wall clock, in unix seconds: all limits and periods are counted by it."""
    url, _ = store_urls(config)
    async with Store(url) as store, store.connection(StoreRole.APP) as conn:
        row = await (await conn.execute("select extract(epoch from clock_timestamp())::float8")).fetchone()
        assert row is not None
        return float(row[0])
