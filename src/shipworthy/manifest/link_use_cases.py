"""``use_cases`` → the unit of governance, with its route, rules and token caps."""

from __future__ import annotations

from collections.abc import Mapping

from shipworthy.manifest.linking import Linking, limits_of
from shipworthy.manifest.problem import KeyPath, quoted
from shipworthy.manifest.shape_use_cases import RouteShape, RuleShape, TokensShape, UseCaseShape
from shipworthy.model.conditions import ConditionError
from shipworthy.model.policy import Mode, Rule, TokenCaps, UseCase
from shipworthy.model.route import Ability, Demand, Model, Strategy, unmet

OUTPUT_TOKENS_DEFAULT = 1024
INPUT_TOKENS_DEFAULT = 32_768


def link_use_cases(linking: Linking, models: Mapping[str, Model], demands: Mapping[int, Demand]) -> dict[str, UseCase]:
    """Every use case that at least one linked model can serve."""
    linked = {}
    for name, shape in linking.manifest.use_cases.items():
        use_case = _use_case(linking, name, shape, models)
        if use_case is not None:
            linked[name] = use_case
            _servable(linking, use_case, demands)
    return linked


def _use_case(linking: Linking, name: str, shape: UseCaseShape, models: Mapping[str, Model]) -> UseCase | None:
    path: KeyPath = ("use_cases", name)
    routed, weights = _routed(linking, (*path, "route"), shape.route, models)
    rules = _rules(linking, (*path, "route"), shape.route, models)
    budget = linking.budget((*path, "budget"), shape.budget, [said.model for said in shape.route.models])
    rank: int | None = len(linking.classes) - 1
    if shape.data_class is not None:
        rank = linking.rank((*path, "data_class"), shape.data_class)
    abilities = _abilities(linking, (*path, "route", "models"), routed)
    if not routed or rank is None or not abilities:
        return None
    return UseCase(
        name=name,
        job=shape.job,
        owner=shape.owner,
        risk=shape.risk,
        data_class=rank,
        mode=Mode(shape.mode),
        tokens=_tokens(linking, (*path, "tokens"), shape.tokens, routed, abilities),
        strategy=Strategy(shape.route.strategy),
        models=tuple(routed),
        weights=tuple(weights),
        rules=rules,
        abilities=abilities,
        limits=limits_of(shape.limits),
        budget=budget,
        drain_seconds=shape.on_disconnect.drain_seconds,
    )


def _routed(
    linking: Linking, path: KeyPath, route: RouteShape, models: Mapping[str, Model]
) -> tuple[list[Model], list[float]]:
    routed: list[Model] = []
    weights: list[float] = []
    for index, said in enumerate(route.models):
        here = (*path, "models", index)
        if said.weight is not None and route.strategy != "weighted":
            what = f"a weight says nothing to the strategy {route.strategy}"
            linking.tree.report(here, what, said=f"weight {said.weight:g}", wanted="strategy: weighted, or no weight")
        if said.model in [earlier.model for earlier in route.models[:index]]:
            linking.tree.report(here, "a model stands here twice", said=quoted(said.model), wanted="each model once")
        elif said.model in models:
            routed.append(models[said.model])
            weights.append(1.0 if said.weight is None else said.weight)
        else:
            linking.unknown(here, "model", said.model, linking.shaped.names(("models",)), ("models",))
    return routed, weights


def _abilities(linking: Linking, path: KeyPath, routed: list[Model]) -> frozenset[Ability]:
    """What every model of the route can: which endpoint the use case is for."""
    if not routed:
        return frozenset()
    first = routed[0]
    for model in routed[1:]:
        if model.abilities != first.abilities:
            ours, theirs = (", ".join(sorted(each.abilities)) for each in (first, model))
            what = f"the models of a route must have the same abilities: {first.name} can {ours}, {model.name} can {theirs}"
            linking.tree.report(
                path, what, said="", wanted="models with the same abilities", hint="make a use case for each"
            )
            return frozenset()
    return first.abilities


def _rules(linking: Linking, path: KeyPath, route: RouteShape, models: Mapping[str, Model]) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    names = [said.model for said in route.models]
    for index, shape in enumerate(route.rules):
        here = (*path, "rules", index)
        if shape.id in [earlier.id for earlier in route.rules[:index]]:
            linking.tree.report((*here, "id"), "another rule has this id", wanted="an id of its own")
        for at, name in enumerate(shape.models):
            if name not in names:
                what = "model of this route"
                linking.unknown((*here, "models", at), what, name, names)
        rule = _rule(linking, here, shape)
        if rule is not None:
            rules.append(rule)
    return tuple(rules)


def _rule(linking: Linking, path: KeyPath, shape: RuleShape) -> Rule | None:
    try:
        when = linking.compile_condition(shape.when, linking.classes)
    except ConditionError as bad:
        linking.tree.report((*path, "when"), bad.what, said=bad.said, wanted=bad.wanted, hint=bad.hint)
        return None
    return Rule(shape.id, shape.when, when, frozenset(shape.models))


def _tokens(
    linking: Linking, path: KeyPath, shape: TokensShape, routed: list[Model], abilities: frozenset[Ability]
) -> TokenCaps:
    """The declared caps; what is not declared is what every model of the route can, within a default."""
    context = min(model.context_tokens_max for model in routed)
    chats = Ability.CHAT in abilities
    widest = min(model.output_tokens_max for model in routed) if chats else 0
    output = shape.output_max or min(OUTPUT_TOKENS_DEFAULT, widest, max(1, context // 4))
    given = shape.input_max or min(INPUT_TOKENS_DEFAULT, max(1, context - output))
    for model in routed:
        if chats and output > model.output_tokens_max:
            what = (
                f"{model.name} can produce {model.output_tokens_max} tokens only: it is left out of every such request"
            )
            _one_or_all(linking, (*path, "output_max"), what, all_of=output > max(m.output_tokens_max for m in routed))
        if given + output > model.context_tokens_max:
            what = (
                f"input_max and output_max together are {given + output}; {model.name} holds {model.context_tokens_max}"
            )
            roomiest = max(m.context_tokens_max for m in routed)
            _one_or_all(linking, (*path, "input_max"), what, all_of=given + output > roomiest)
    return TokenCaps(given, shape.passages_max, output)


def _one_or_all(linking: Linking, path: KeyPath, what: str, *, all_of: bool) -> None:
    """A problem when no model can, a warning when some cannot."""
    report = linking.tree.report if all_of else linking.tree.warn
    report(path, what, hint="lower it, or state what the model can under models")


def _servable(linking: Linking, use_case: UseCase, demands: Mapping[int, Demand]) -> None:
    """A use case whose own data class no provider of its route may see is a problem; if some may not, a warning."""
    demand = demands.get(use_case.data_class, Demand())
    today = linking.today.isoformat()
    barred = {model.name: unmet(model.provider.boundary, demand, today) for model in use_case.models}
    barred = {name: why for name, why in barred.items() if why}
    if not barred:
        return
    path: KeyPath = ("use_cases", use_case.name, "route", "models")
    label = linking.classes[use_case.data_class]
    words = "; ".join(f"{name}: {why}" for name, why in barred.items())
    if len(barred) == len(use_case.models):
        what = f"no model may see {label} data, the class of this use case ({words})"
        hint = "route to a provider that promises it, state its boundary, or lower the use case's data_class"
        linking.tree.report(path, what, said="", wanted="a model whose provider's boundary admits the class", hint=hint)
    else:
        what = f"some models may not see {label} data, the class of this use case, and are never taken ({words})"
        linking.tree.warn(path, what)
