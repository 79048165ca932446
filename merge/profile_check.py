"""What is wrong with a profile before there is a database: contradictions, and names that the inventory does not know.

Each problem is one line. All of them are found at once: who corrects a profile should not have to guess how many more
there are.
"""

from __future__ import annotations

from collections import defaultdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from merge.inventory import is_exact, matching
from merge.language import text
from merge.plan import Role

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from merge.inventory import KnownTable
    from merge.profile import Capsule, Columns, Neutralise, Override, Profile, Reference, Rule, Smoke

_NEVER_COME = {Role.CONFIG, Role.DERIVED}


def problems(profile: Profile, known: Mapping[str, KnownTable] | None) -> list[str]:
    """All that is wrong with a profile of its own.

    :param known: the application's tables; None if nobody wrote them down.
    """
    found = list(_rules(profile.rule))
    found += [
        text(
            pt=f"{_title(c)}: replaces só vale num arquivo de ajuste", en=f"{_title(c)}: replaces is for override files"
        )
        for c in profile.declarations
        if c.replaces
    ]
    if known is None:
        tables: dict[str, set[str]] = {}
    else:
        tables = {name: set(table.columns) for name, table in known.items()}
        found += _holding(profile.rule, known)
        found += _columns(profile, tables)
        found += _sandbox(profile, tables)
    found += _targets(profile.reference)
    found += _contradictions(profile.declarations, tables)
    found += _repeated(profile.neutralise, profile.capsule, profile.smoke)
    found += _beyond_recall(profile, known)
    return found


def override_problems(profile: Profile, override: Override, known: Mapping[str, KnownTable] | None) -> list[str]:
    """All that is wrong with an override file for `profile`.

    It is there for tables and columns that the inventory does not know, so that a name that is unknown is no problem
    yet: `merge.planner` looks for it in the database.
    """
    found = list(_rules(override.rule))
    said: tuple[Columns, ...] = (*override.reference, *override.value, *override.opaque)
    tables = {} if known is None else {name: set(table.columns) for name, table in known.items()}
    shipped = _meanings(profile.declarations, _with_exact(tables, (*profile.declarations, *said)))
    for columns in said:
        named = set(columns.among(_with_exact(tables, said)))
        if columns.replaces and not named & shipped.keys():
            found.append(
                text(pt=f"{_title(columns)}: não há o que substituir", en=f"{_title(columns)}: replaces nothing")
            )
    found += _targets(override.reference)
    both = profile.overridden(override, "")
    found += _contradictions(both.declarations, tables)
    found += _repeated(override.neutralise, override.capsule, override.smoke)
    shipped_problems = set(_beyond_recall(profile, known))
    found += [problem for problem in _beyond_recall(both, known) if problem not in shipped_problems]
    return found


# Rules


def _rules(rules: Sequence[Rule]) -> Iterator[str]:
    explicit: dict[str, int] = {}
    for rule in rules:
        title = _rule_title(rule)
        for what in _contradicts_itself(rule):
            yield f"{title}: {what}"
        for pattern in rule.tables:
            if pattern in explicit:
                yield text(pt=f"{pattern}: em duas regras", en=f"{pattern}: in two rules")
            explicit[pattern] = 1


def _contradicts_itself(rule: Rule) -> Iterator[str]:
    searched = bool(rule.match or rule.within)
    stays = rule.role in _NEVER_COME or not rule.come
    fixed = (rule.key or ("fixed" if rule.role is Role.CATALOG else "local")) == "fixed"
    if (rule.mirror is None) != (not rule.of):
        yield text(pt="mirror e of andam juntos", en="mirror and of go together")
    if "come" in rule.model_fields_set and rule.role is not Role.QUEUE:
        yield text(pt="come só vale para filas (queue)", en="come is for queues only")
    if rule.match and rule.within:
        yield text(
            pt="match e within: uma linha com chave própria não é procurada pelo conteúdo",
            en="match and within: a row with a key of its own is not looked for by content",
        )
    if rule.within and rule.central_owns:
        yield text(
            pt="within e central_owns: as linhas vêm ou não vêm", en="within and central_owns: the rows come, or do not"
        )
    if stays and (searched or rule.central_owns):
        yield text(
            pt="as linhas não vêm: nada há para procurar (match, within, central_owns)",
            en="the rows do not come: there is nothing to look for (match, within, central_owns)",
        )
    elif searched and fixed:
        yield text(
            pt='match e within só valem com key = "local": um código fixo já diz qual é a linha',
            en='match and within need key = "local": a fixed code says already which row it is',
        )


def _holding(rules: Sequence[Rule], known: Mapping[str, KnownTable]) -> Iterator[str]:
    """Patterns of rules that no table has, or only tables that earlier rules take; columns that are not there."""
    free = dict(known)
    for rule in rules:
        title = _rule_title(rule)
        for pattern in rule.tables:
            matched = [t for t in known if fnmatchcase(t, pattern)]
            if not matched:
                yield _unknown(f"{title}: {pattern}")
            elif not any(t in free and rule.matches(t, known[t].primary_key) for t in matched):
                yield text(
                    pt=f"{title}: {pattern}: não vale para nenhuma tabela (há regras antes, ou a chave é outra)",
                    en=f"{title}: {pattern}: holds for no table (rules come before, or the key is another)",
                )
        mine = [t for t in free if rule.matches(t, known[t].primary_key)]
        for table in mine:
            del free[table]
            for column in _named_columns(rule):
                owner, _, name = column.rpartition(".")
                other = known.get(owner or table)
                if other is None or name not in other.columns:
                    yield _unknown(f"{table}: {column}")


def _named_columns(rule: Rule) -> list[str]:
    return [*(c for keys in rule.match for c in keys), *(c for c in (rule.within, rule.central_owns) if c)]


# Columns


def _columns(profile: Profile, tables: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Column patterns that match nothing, and targets and keys that are not there."""
    for columns in profile.declarations:
        for pattern in (*columns.columns, *columns.besides):
            if next(matching(pattern, tables), None) is None:
                yield _unknown(f"{columns.meaning}: {pattern}")
    for target in dict.fromkeys(reference.to for reference in profile.reference):
        if next(matching(target, tables), None) is None:
            yield _unknown(f"→ {target}")
    person = profile.person
    if person is not None:
        there = tables.get(person.table, ())
        names = [f"{person.table}.{key}" for key in person.keys if key not in there] if there else [person.table]
        yield from (_unknown(f"person: {name}") for name in names)


def _targets(references: Iterable[Reference]) -> Iterator[str]:
    for reference in references:
        if not is_exact(reference.to):
            yield text(pt=f"{reference.to}: o alvo é uma coluna", en=f"{reference.to}: a target is one column")


def _contradictions(declarations: Sequence[Columns], tables: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Columns of which two different things are said."""
    for (table, column), said in _meanings(declarations, _with_exact(tables, declarations)).items():
        if len(said) > 1:
            yield f"{table}.{column}: {' ≠ '.join(sorted(said))}"


def _meanings(
    declarations: Iterable[Columns], tables: Mapping[str, Collection[str]]
) -> Mapping[tuple[str, str], set[str]]:
    meanings: dict[tuple[str, str], set[str]] = defaultdict(set)
    for columns in declarations:
        for member in columns.among(tables):
            meanings[member].add(columns.meaning)
    return meanings


def _with_exact(tables: Mapping[str, Collection[str]], declarations: Iterable[Columns]) -> dict[str, set[str]]:
    """The tables, and the columns that are named without a wildcard."""
    found = {name: set(columns) for name, columns in tables.items()}
    for columns in declarations:
        for pattern in columns.columns:
            table, column = pattern.split(".")
            if is_exact(pattern):
                found.setdefault(table, set()).add(column)
    return found


# What is done to a copy, and watched


def _sandbox(profile: Profile, tables: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Tables and columns to be neutralised or watched that are not there."""
    for rule in profile.neutralise:
        if rule.table not in tables:
            if not rule.optional:
                yield _unknown(f"neutralise {rule.id}: {rule.table}")
        else:
            yield from (
                _unknown(f"neutralise {rule.id}: {rule.table}.{column}")
                for column in rule.values
                if column not in tables[rule.table] and not rule.optional
            )
    yield from (
        _unknown(f"capsule: {declared.table}")
        for declared in profile.capsule
        if declared.table not in tables and not declared.optional
    )
    for pattern in (*profile.watch.growing, *profile.watch.status):
        if not any(fnmatchcase(table, pattern) for table in tables):
            yield _unknown(f"watch: {pattern}")


def _beyond_recall(profile: Profile, known: Mapping[str, KnownTable] | None) -> Iterator[str]:
    """Rules that change what nobody would put back: neither configuration of the capsule nor a queue, whose rows the
    undo list has and production keeps.
    """
    covered = {declared.table for declared in profile.capsule}
    for rule in profile.neutralise:
        table = (known or {}).get(rule.table)
        declared = profile.rule_of(rule.table, table.primary_key if table is not None else ())
        if rule.table not in covered and (declared is None or declared.role is not Role.QUEUE):
            yield text(
                pt=f"neutralise {rule.id}: {rule.table} não está na cápsula ([[capsule]]) nem é uma fila",
                en=f"neutralise {rule.id}: {rule.table} is neither in the capsule ([[capsule]]) nor a queue",
            )


def _repeated(rules: Iterable[Neutralise], capsule: Iterable[Capsule], strata: Iterable[Smoke]) -> Iterator[str]:
    names = [
        *(f"neutralise {rule.id}" for rule in rules),
        *(f"capsule {declared.table}" for declared in capsule),
        *(f"smoke {stratum.name}" for stratum in strata),
    ]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"{name} ×{names.count(name)}"


# Words


def _title(columns: Columns) -> str:
    return f"{columns.meaning}: {columns.columns[0] if columns.columns else ''}"


def _rule_title(rule: Rule) -> str:
    return f"rule {rule.tables[0] if rule.tables else ''}"


def _unknown(name: str) -> str:
    return text(pt=f"{name}: não existe", en=f"{name}: does not exist")
