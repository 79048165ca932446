"""The declared knowledge about one application's schema, read from a TOML file.

A profile says what a table is (its role), by a rule for one table or for a pattern of names, by which keys its rows
are the same as rows already there, and which columns refer to which without a foreign key. It knows no catalog: what
it means for the tables that are really there is worked out by `merge.planner`.

Override files settle what a profile does not know, without touching it. They hold rules and declarations only. Their
rules come before the profile's, those of the last file first. Their declarations add to the profile's: one that says
something else of a column than another is an error, but where it has ``replaces = true`` it holds instead. What they
say of neutralising, of the capsule and of smoke tests holds in place of what the profile says under the same id, table
or name, or adds to it.
"""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Mapping  # noqa: TC003 (pydantic reads it at run time)
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from merge import inventory, profile_check
from merge.errors import ConfigError
from merge.inventory import matching
from merge.language import text
from merge.plan import Role  # noqa: TC001 (pydantic reads it at run time)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from merge.inventory import KnownTable

Evidence = Literal["seen", "inferred"]
_COLUMN = re.compile(r"\{(\w+)\}")
ColumnPattern = Annotated[str, StringConstraints(pattern=r"^[^.]+\.[^.]+$")]


class Text(BaseModel):
    """A text in both languages; as `str`, in the user's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pt: str
    en: str

    def __str__(self) -> str:
        return text(pt=self.pt, en=self.en)


class _Declaration(BaseModel):
    """:ivar file: the override file that it comes from; empty in a profile of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Text | str
    evidence: Evidence
    file: str = ""


class Columns(_Declaration):
    """What is said of columns.

    :param columns: patterns ``table.column``, with ``*`` as a wildcard.
    :param besides: columns that the patterns match, but which are not meant.
    :param replaces: in an override file: holds instead of what is said of these columns elsewhere.
    """

    columns: tuple[ColumnPattern, ...]
    besides: tuple[ColumnPattern, ...] = ()
    replaces: bool = False

    @property
    def meaning(self) -> str:
        """What is said of them, in a word."""
        return type(self).__name__.lower()

    def names(self, table: str, column: str) -> bool:
        """True if the column is one of those meant."""
        return _any_match(self.columns, table, column) and not _any_match(self.besides, table, column)

    def among(self, tables: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str]]:
        """The columns of `tables` (columns by table) that are meant, each once."""
        found = dict.fromkeys(member for pattern in self.columns for member in matching(pattern, tables))
        return (member for member in found if not _any_match(self.besides, *member))


class Constant(_Declaration):
    """A value that a column has in every row inserted from a source; rows that were there keep theirs.

    :param value: as text of the column's type; NULL if it is left out.
    :param scope: only in this scope.
    :param policy: a name by which the user may ask that the source's values are kept.
    """

    column: str
    value: str | None = None
    scope: str | None = None
    policy: str | None = None


class Rule(_Declaration):
    """What the tables that match one of the patterns are; the first rule that matches a table holds.

    :param tables: names, with ``*`` as a wildcard.
    :param key_column: only for tables whose single-column primary key matches this pattern (and not the pattern
        `not_key_column`).
    :param key: ``fixed`` if the primary key is a code that never changes, ``local`` if each installation numbers its
        own rows. Catalogs are fixed unless said otherwise, all others local.
    :param match: keys, tried in order, by which a row is the same as one already there. A column of a table that
        shares the primary key is written ``table.column``.
    :param within: a reference column: where its target was matched, rows are looked for by content among the
        target's rows.
    :param central_owns: a reference column: where its target was matched, the target's rows in the central are all
        that it has; rows of the source that are not among them are excluded.
    :param come: for queues: whether the rows come along.
    :param mirror: prefix in place of which the name of the mirrored table has one of `of`.
    :param constants: in the file ``set``: values of inserted rows.
    """

    tables: tuple[str, ...]
    role: Role
    key_column: str | None = None
    not_key_column: str | None = None
    key: Literal["fixed", "local"] | None = None
    match: tuple[tuple[str, ...], ...] = ()
    within: str | None = None
    central_owns: str | None = None
    come: bool = True
    mirror: str | None = None
    of: tuple[str, ...] = ()
    constants: tuple[Constant, ...] = Field(alias="set", default=())

    def matches(self, table: str, primary_key: Sequence[str]) -> bool:
        """True if the rule's patterns match the table's name and its primary key."""
        key = primary_key[0] if len(primary_key) == 1 else ""
        return (
            any(fnmatchcase(table, pattern) for pattern in self.tables)
            and (self.key_column is None or fnmatchcase(key, self.key_column))
            and (self.not_key_column is None or not fnmatchcase(key, self.not_key_column))
        )


class Reference(Columns):
    """Columns that refer to a column of another table without a foreign key."""

    to: ColumnPattern

    @property
    def meaning(self) -> str:
        """Where they point to."""
        return f"→ {self.to}"


class Value(Columns):
    """Columns that look like references but hold plain values."""


class Opaque(Columns):
    """Columns that hold keys which cannot be mapped: they come as they are, counted and shown in the report."""


class Attachment(_Declaration):
    """Files outside the database that the rows of a table point to.

    :param files: the paths that files of a row may have, below the directory of attachments: ``{column}`` stands for
        the row's value, all else for itself. A row does not point to a file by a path of which a value is NULL.
    """

    table: str
    files: tuple[str, ...] = Field(min_length=1)

    @field_validator("files")
    @classmethod
    def _relative(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for file in files:
            rest = _COLUMN.sub("x", file)
            if rest == file or set("{}\\\0") & set(rest) or {"", ".", ".."} & set(rest.split("/")):
                raise ValueError(f"not a path with a {{column}} in it: {file}")
        return files

    @staticmethod
    def parts(file: str) -> list[str]:
        """A path taken apart: text and names of columns by turns, text first."""
        return _COLUMN.split(file)


class LeaveOut(_Declaration):
    """What a scope leaves out, and with it all that refers to it.

    :param tables: names, with ``*`` as a wildcard.
    :param where: SQL condition on the row ``s``; tables named in it are the source's. Without it no row comes.
    """

    tables: tuple[str, ...]
    where: str | None = None


class Addition(_Declaration):
    """Rows that a scope adds in place of those of a table that it leaves out whole.

    :param of: a key column of `table`: a row is added only where what it names is inserted from the same source.
    :param query: SQL over the source's tables; gives every column of `table`, with the source's keys, each row once.
    """

    table: str
    of: str
    query: str


class Scope(_Declaration):
    """A choice of what comes of a source, less than everything."""

    name: str
    leave_out: tuple[LeaveOut, ...] = ()
    add: tuple[Addition, ...] = ()


class Handover(BaseModel):
    """A list for the people of a source: what they must make again or know after the merge.

    It may show internal ids, counts and names of configuration, never what was written about or by a person.

    :param columns: headings of the columns that `query` gives from the source's tables.
    :param scope: only in this scope.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: Text
    todo: Text
    columns: tuple[Text, ...]
    query: str
    scope: str | None = None


class Neutralise(BaseModel):
    """A change that keeps a restored copy from talking to the outside, made before the application first starts on it.

    :param where: SQL condition on the rows of `table` that it is about.
    :param values: in the file ``set``: SQL expressions by column, over the row as it is. Applied twice they must give
        what they give once. ``{link}`` in them stands for the address of the copy; other braces are doubled.
    :param delete: the rows are taken out instead.
    :param required: at least one row must meet `where`: without it nobody can say that the copy is neutral.
    :param optional: a table or column that only some versions have, so the inventory need not know it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+$")]
    title: Text
    table: str
    where: str = "true"
    values: Mapping[str, str] = Field(alias="set", default_factory=dict)
    delete: bool = False
    required: bool = False
    optional: bool = False
    evidence: Evidence

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.values) == self.delete:
            raise ValueError("either set or delete")
        for expression in (self.where, *self.values.values()):
            names = {name for _, name, _, _ in string.Formatter().parse(expression) if name is not None}
            if names - {"link"}:
                raise ValueError("{link} is the only name in braces")
        return self


class Capsule(_Declaration):
    """A table of production's own configuration: its rows are put back into what takes production's place.

    :param where: SQL condition on the rows of `table` that are meant, by their own columns.
    :param exact: there may be no other such rows; without it those that the merge has added stay.
    :param optional: a table that only some versions have, so the inventory need not know it.
    """

    table: str
    where: str = "true"
    exact: bool = False
    optional: bool = False


class Smoke(BaseModel):
    """People of one kind, of whom a few are drawn and looked at on the screen by professionals.

    :param query: gives one column: the internal id of a person, or an array with those of the rows of one person.
    :param needs_both: these people were in more than one base: who knows which (the duplicates that a merge listed)
        draws from those, else from what `query` gives of the merged base.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^\w+$")]
    title: Text
    query: str
    needs_both: bool = False
    evidence: Evidence


class Watch(BaseModel):
    """What is watched while the application itself unifies.

    :param growing: tables whose growth tells that it goes on.
    :param status: tables, with ``*`` as a wildcard, that hold the state of the unification.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    growing: tuple[str, ...] = ()
    status: tuple[str, ...] = ()


class Person(BaseModel):
    """Where the people are whose duplicates are listed: table, and the keys that tell two rows of the same person."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    keys: tuple[str, ...]
    where: str = "true"


class Application(BaseModel):
    """What the application is called and where its data are.

    :param version: query that gives the application's version, one row with one text.
    :param reference_names: patterns of integer columns that must be keys, references or declared values.
    :param essential: tables without whose rows a backup is not one of this application.
    :param inventory: file beside the profile with the tables and columns that are known, see `merge.inventory`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    schema_: str = Field(alias="schema", default="public")
    version: str | None = None
    reference_names: tuple[str, ...] = ()
    essential: tuple[str, ...] = ()
    inventory: str | None = None


class Override(BaseModel):
    """An override file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: tuple[Rule, ...] = ()
    reference: tuple[Reference, ...] = ()
    value: tuple[Value, ...] = ()
    opaque: tuple[Opaque, ...] = ()
    neutralise: tuple[Neutralise, ...] = ()
    capsule: tuple[Capsule, ...] = ()
    smoke: tuple[Smoke, ...] = ()


class Profile(BaseModel):
    """A whole profile."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    application: Application
    rule: tuple[Rule, ...]
    reference: tuple[Reference, ...] = ()
    value: tuple[Value, ...] = ()
    opaque: tuple[Opaque, ...] = ()
    attachment: tuple[Attachment, ...] = ()
    person: Person | None = None
    scope: tuple[Scope, ...] = ()
    handover: tuple[Handover, ...] = ()
    neutralise: tuple[Neutralise, ...] = ()
    capsule: tuple[Capsule, ...] = ()
    smoke: tuple[Smoke, ...] = ()
    watch: Watch = Watch()
    _known: Mapping[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)

    @property
    def known(self) -> Mapping[str, tuple[str, ...]]:
        """The columns of every table of the inventory; nothing if the profile names none."""
        return self._known

    def is_value(self, table: str, column: str) -> bool:
        """True if the column is declared to hold plain values."""
        return any(value.names(table, column) for value in self.value)

    def is_opaque(self, table: str, column: str) -> bool:
        """True if the column is declared to hold keys that cannot be mapped."""
        return any(opaque.names(table, column) for opaque in self.opaque)

    def is_reference(self, table: str, column: str) -> bool:
        """True if the column is declared to refer to another."""
        return any(reference.names(table, column) for reference in self.reference)

    @property
    def declarations(self) -> tuple[Columns, ...]:
        """All that is said of columns."""
        return (*self.reference, *self.value, *self.opaque)

    def rule_of(self, table: str, primary_key: Sequence[str]) -> Rule | None:
        """The rule that holds for a table: the first that matches."""
        return next((rule for rule in self.rule if rule.matches(table, primary_key)), None)

    def overridden(self, override: Override, file: str) -> Profile:
        """This profile under an override file of that name."""
        said: tuple[Columns, ...] = (*override.reference, *override.value, *override.opaque)
        gone = tuple(pattern for columns in said if columns.replaces for pattern in columns.columns)
        neutral = {rule.id: rule for rule in (*self.neutralise, *override.neutralise)}
        capsule = {declared.table: declared for declared in (*self.capsule, *_of(file, override.capsule))}
        smoke = {stratum.name: stratum for stratum in (*self.smoke, *override.smoke)}
        return self.model_copy(
            update={
                "rule": (*_of(file, override.rule), *self.rule),
                "reference": (*_without(gone, self.reference), *_of(file, override.reference)),
                "value": (*_without(gone, self.value), *_of(file, override.value)),
                "opaque": (*_without(gone, self.opaque), *_of(file, override.opaque)),
                "neutralise": tuple(neutral.values()),
                "capsule": tuple(capsule.values()),
                "smoke": tuple(smoke.values()),
            }
        )


_D = TypeVar("_D", bound=_Declaration)
_C = TypeVar("_C", bound=Columns)


def _of(file: str, declarations: Iterable[_D]) -> tuple[_D, ...]:
    return tuple(declaration.model_copy(update={"file": file}) for declaration in declarations)


def _without(gone: tuple[str, ...], declarations: Iterable[_C]) -> tuple[_C, ...]:
    return tuple(columns.model_copy(update={"besides": (*columns.besides, *gone)}) for columns in declarations)


def _any_match(patterns: Iterable[str], table: str, column: str) -> bool:
    name = f"{table}.{column}"
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def load(name: str | Path = "pec", overrides: Sequence[str | Path] = ()) -> Profile:
    """Load a shipped profile by its name, or any profile by its path, under override files.

    Without a database it is checked as far as can be: against itself, and against the inventory that it names.

    :raises ConfigError: with all problems of all files at once.
    """
    path = Path(name)
    source = path if path.suffix == ".toml" else Path(str(resources.files("merge.profiles") / f"{name}.toml"))
    problems: list[str] = []
    profile = _read(source, Profile, problems)
    known: dict[str, KnownTable] | None = None
    if profile is not None and profile.application.inventory is not None:
        try:
            known = inventory.read(source.with_name(profile.application.inventory))
        except (OSError, ValueError) as ex:
            problems.append(f"inventory: {ex}")
    if profile is not None and not problems:
        problems += profile_check.problems(profile, known)
    for file in map(Path, overrides):
        found: list[str] = []
        override = _read(file, Override, found)
        if override is not None and profile is not None:
            found += profile_check.override_problems(profile, override, known)
            profile = profile.overridden(override, file.name)
        problems += [f"{file.name}: {problem}" for problem in found]
    if profile is not None and not problems:
        profile._known = {name: table.columns for name, table in (known or {}).items()}
        return profile
    raise ConfigError(
        text(pt=f"O perfil {source.name} não pode ser usado.", en=f"The profile {source.name} cannot be used."),
        evidence=", ".join(str(p) for p in (source, *overrides)),
        next_step=text(pt="Corrija o arquivo.", en="Correct the file."),
        details=problems,
    )


_M = TypeVar("_M", bound=BaseModel)


def _read(file: Path, model: type[_M], problems: list[str]) -> _M | None:
    """Read a TOML file into `model`; what is wrong with it is added to `problems`."""
    try:
        return model.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as ex:
        problems.append(str(ex))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as ex:
        problems.append(str(ex))
    except ValidationError as ex:
        problems += [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in ex.errors()]
    return None
