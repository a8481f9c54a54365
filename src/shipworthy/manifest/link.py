"""``Manifest`` → ``Snapshot`` and ``Deployment``: names become objects, and everything wrong is reported at once."""

from __future__ import annotations

from pathlib import Path

from shipworthy.manifest.deployment import Deployment
from shipworthy.manifest.link_models import link_models, link_providers
from shipworthy.manifest.link_process import link_deployment
from shipworthy.manifest.link_requirements import link_bodies, link_classes, link_demands
from shipworthy.manifest.link_tenants import link_tenants
from shipworthy.manifest.link_use_cases import link_use_cases
from shipworthy.manifest.linking import Linking
from shipworthy.model.policy import Snapshot
from shipworthy.model.route import Network


def link(linking: Linking, folder: Path, digest: str) -> tuple[Snapshot, Deployment]:
    """What the shapes mean. Trust the result only if the tree has no problem afterwards."""
    manifest = linking.manifest
    classes = link_classes(linking)
    demands = link_demands(linking)
    providers = link_providers(linking)
    models = link_models(linking, providers)
    use_cases = link_use_cases(linking, models, demands)
    tenants = link_tenants(linking, use_cases)
    if not manifest.requirements.boundary and any(p.boundary.network is Network.PUBLIC for p in providers.values()):
        what = "no class demands anything of a provider, so every provider may see everything"
        linking.tree.warn(("requirements",), what, wanted="requirements.boundary", hint="state what a class demands")
    snapshot = Snapshot(
        name=manifest.name,
        environment=manifest.environment,
        digest=digest,
        data_classes=classes,
        demands=demands,
        tenants=tenants,
        use_cases=use_cases,
        models=models,
        providers=providers,
        operator_groups=frozenset(manifest.operators.groups if manifest.operators else ()),
        strict=manifest.requirements.audit.durability == "strict",
        retention_days=manifest.requirements.audit.retention_days,
        bodies=link_bodies(linking),
        region=manifest.region or "",
    )
    return snapshot, link_deployment(linking, folder)
