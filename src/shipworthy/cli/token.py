"""``shipworthy token mint`` and ``shipworthy token explain``."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from shipworthy.cli.options import EXIT_PROBLEM, EXIT_USAGE, Config, Json, fail

if TYPE_CHECKING:
    from shipworthy.control.tokens import Explanation, Minted
    from shipworthy.manifest.load import Loaded
    from shipworthy.model.observation import Observation

INPUT_CHARS_MAX = 65_536
DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")
UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MARKS = {"passed": ("✓", "green"), "refused": ("✗", "red"), "unchecked": ("?", "yellow")}


def register(app: typer.Typer) -> None:
    token = typer.Typer(help="Mint development tokens; explain any token.", no_args_is_help=True)
    token.command("mint")(mint)
    token.command("explain")(explain)
    app.add_typer(token, name="token")


def mint(
    tenant: Annotated[str, typer.Option(help="The tenant that the token is for.")],
    subject: Annotated[str, typer.Option(help="Who it is for.")],
    groups: Annotated[str, typer.Option(help="Groups, separated by commas: they choose the role.")] = "",
    clearance: Annotated[str, typer.Option(help="The highest data class; nothing = the role's.")] = "",
    ttl: Annotated[str, typer.Option(help="How long it lasts: 90s, 30m, 1h, 7d.")] = "1h",
    actor: Annotated[str, typer.Option(help="A service that acts for the subject (RFC 8693 act).")] = "",
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
) -> None:
    """Mint a token of the development issuer. It goes to standard output, everything else to standard error."""
    from shipworthy.bootstrap import development_issuer, read_manifest
    from shipworthy.control import tokens
    from shipworthy.model.errors import StartRefused
    from shipworthy.model.op import Op
    from shipworthy.ports import TokenWish

    lasts = DURATION.fullmatch(ttl)
    if lasts is None:
        usage(f"--ttl {ttl!r} is no duration: say 90s, 30m, 1h or 7d")
    wish = TokenWish(
        tenant=tenant,
        subject=subject,
        groups=tuple(dict.fromkeys(group.strip() for group in groups.split(",") if group.strip())),
        clearance=clearance,
        actor=actor,
        ttl_s=int(lasts[1]) * UNIT_S[lasts[2]],
    )
    try:
        loaded = read_manifest(config, require_references=False)
        issuer = development_issuer(loaded)
        if issuer is None:
            raise StartRefused(
                "token.no_development_issuer",
                f"{config} has no development issuer",
                "set identity.development_issuer: true, or get tokens from your own issuer",
            )
        minted = tokens.mint(Op.for_cli(unheard), loaded.snapshot, issuer, wish, f"cli:{account()}")
    except StartRefused as refused:
        fail(refused)
    unrecorded = asyncio.run(record(config, minted))
    show_minted(minted, unrecorded, as_json)


async def record(config: Path, minted: Minted) -> str:
    """Puts the mint on record beside a running store; why not, where that cannot be."""
    from shipworthy.bootstrap import control_plane
    from shipworthy.control.tokens import record_mint
    from shipworthy.model.errors import StartRefused, StoreUnavailable

    try:
        async with control_plane(config, unheard) as plane:
            await record_mint(plane.acts, minted)
    except (StartRefused, StoreUnavailable) as away:
        return str(away)
    return ""


def show_minted(minted: Minted, unrecorded: str, as_json: bool) -> None:
    for warning in minted.warnings:
        typer.secho(f"warning: {warning}", fg="yellow", err=True)
    if unrecorded:
        typer.secho(f"warning: the mint is not on record: {unrecorded}", fg="yellow", err=True)
    if as_json:
        said = {"token": minted.token, "expires_unix_s": minted.expires_unix_s, "recorded": not unrecorded}
        typer.echo(json.dumps(said | {"warnings": list(minted.warnings)}))
    else:
        typer.echo(minted.token)


def explain(
    token: Annotated[str, typer.Argument(help="The token; - reads it from standard input.", show_default=False)] = "",
    file: Annotated[Path | None, typer.Option("--file", help="Read the token from a file.", dir_okay=False)] = None,
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
) -> None:
    """Say whom a token names and what it is granted, or which rule refuses it. Exit code 1 when it would be refused."""
    from shipworthy.bootstrap import read_manifest
    from shipworthy.model.errors import StartRefused

    text = given(token, file)
    try:
        loaded = read_manifest(config, require_references=False)
        explanation = asyncio.run(explained(loaded, text))
    except StartRefused as refused:
        fail(refused)
    typer.echo(json.dumps(spelled(explanation), indent=2)) if as_json else show(explanation)
    if explanation.verdict != "trusted":
        raise typer.Exit(EXIT_PROBLEM)


async def explained(loaded: Loaded, token: str) -> Explanation:
    """The explanation from the manifest, with keys fetched from the issuers that can be reached."""
    from shipworthy.adapters.identity.inspection import JwtInspector
    from shipworthy.adapters.identity.issuers import Issuers
    from shipworthy.adapters.identity.settings import identity_settings
    from shipworthy.bootstrap import development_issuer
    from shipworthy.control import tokens
    from shipworthy.model.op import Op, SystemClock

    development = development_issuer(loaded)
    issuers = Issuers(SystemClock(), unheard)
    try:
        settings = identity_settings(loaded.deployment.identity, loaded.snapshot.operator_groups)
        verifier = issuers.adopt(settings, [development.trusted] if development else [])
        return await tokens.explain(Op.for_cli(unheard), loaded.snapshot, JwtInspector(verifier), token)
    finally:
        await issuers.aclose()


def given(token: str, file: Path | None) -> str:
    """The token from its one place, bounded, without what copying adds to it."""
    if bool(token) == (file is not None):
        usage("name the token once: as an argument, as - for standard input, or with --file")
    if file is not None:
        try:
            with file.open(encoding="utf-8", errors="replace") as opened:
                token = opened.read(INPUT_CHARS_MAX)
        except OSError as reason:
            usage(f"{file} cannot be read: {reason.strerror}")
    elif token == "-":
        token = sys.stdin.read(INPUT_CHARS_MAX)
    token = token.strip()
    return token[7:].strip() if token[:7].lower() == "bearer " else token


def show(explanation: Explanation) -> None:
    """In words. Claims are printed as JSON with escapes: a terminal obeys nothing that a token says."""
    reading = explanation.reading
    for title, part in (("header", reading.header), ("claims", reading.claims)):
        typer.secho(title, bold=True)
        for name, value in part.items():
            typer.echo(f"  {plain(name)}: {json.dumps(value)}")
    typer.secho("checks", bold=True)
    for check in reading.checks:
        mark, colour = MARKS[check.result]
        code = f"{check.code}: " if check.code else ""
        typer.echo(f"  {typer.style(mark, fg=colour)} {check.name:<10} {code}{plain(check.said)}")
    if (principal := reading.principal) is not None:
        typer.secho("principal" if explanation.verdict == "trusted" else "principal that it claims", bold=True)
        for name in ("tenant", "subject", "actor", "kind", "groups", "clearance", "operator"):
            typer.echo(f"  {name}: {json.dumps(getattr(principal, name), ensure_ascii=False)}")
    show_use_cases(explanation)
    _, colour = MARKS[{"trusted": "passed"}.get(explanation.verdict, explanation.verdict)]
    rule = f": {explanation.rule.name} ({explanation.rule.code or 'not reached'})" if explanation.rule else ""
    typer.secho(f"{explanation.verdict}{rule}", fg=colour, bold=True)


def show_use_cases(explanation: Explanation) -> None:
    if not explanation.use_cases:
        return
    typer.secho("use cases", bold=True)
    for answer in explanation.use_cases:
        mark, colour = MARKS["refused" if answer.code else "passed"]
        models = f" · models {', '.join(answer.models)} · up to {answer.clearance}" if answer.models else ""
        code = f"{answer.code}: " if answer.code else ""
        typer.echo(f"  {typer.style(mark, fg=colour)} {answer.use_case}: {code}{plain(answer.said)}{models}")
        for reason in answer.reasons:
            typer.echo(f"      {plain(reason)}")


def spelled(explanation: Explanation) -> dict[str, object]:
    """The explanation as JSON says it; the signature is not in it."""
    import msgspec

    built = msgspec.to_builtins(explanation)
    assert isinstance(built, dict)
    return built


def plain(text: str) -> str:
    """``text`` without anything that a terminal would obey."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def account() -> str:
    """The account of this machine that runs the command."""
    import os
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def usage(said: str) -> NoReturn:
    typer.secho(said, fg="red", err=True)
    raise typer.Exit(EXIT_USAGE)


def unheard(observation: Observation) -> None:
    """What happens on the way is in the answer itself."""
