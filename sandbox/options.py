"""What a run is asked: from the words of the command line, and back from the run folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge import checks, profile, scopes
from merge.errors import ConfigError
from merge.language import text
from merge.plan import ALL
from sandbox import choose, preflight
from sandbox.pec.listen import PORT
from sandbox.sample import world

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sandbox.runs import Run

CENTRAL = checks.CENTRAL

SQL, PEC = "sql", "pec"
ENGINES = (SQL, PEC)
VENDOR = "vendor"
"""The scope of a profile that says what the vendor's own unification sends."""

PEC_MEMORY = 4096
"""Megabytes for a PEC unless another number is given: half of what the vendor asks of its smallest server."""
_LEAST_MEMORY = 256


_PASSWORDS = "passwords"
"""The policy of a profile that makes the sources' users change their passwords."""

_ENDINGS = {".backup", ".bak", ".bkp", ".dump", ".gz", ".pgdump", ".sql", ".tar", ".tgz", ".zip"}
_NAME = re.compile(r"[^\W_](?:[\w .()-]*[\w)])?")
_RESERVED = {CENTRAL, checks.RUN, checks.MERGED}

Named = tuple[str, Path]


@dataclass(frozen=True)
class Options:
    """What the user asked for; kept with the run, so that it can be resumed.

    :param central: the central's backup; None to make synthetic backups.
    :param sources: name and backup of every source, in merge order.
    :param attachments: name of a base and the directory of its attachments.
    :param major: PostgreSQL major version; None for that of the central's backup.
    :param scope: what comes of a source: all, or a scope of the profile.
    :param keep_passwords: users of the sources keep their passwords.
    :param final: whether the result is to go to production: then what only warns in a rehearsal may block.
    :param accepted: reason by id of the warnings that were accepted.
    :param confirmations: file of what people confirmed.
    :param engine: what merges: sql, this project; or pec, the vendor's own unification, which a person does.
    :param pec_jar: the installer of PEC; needed by the engine pec.
    :param pec_memory: megabytes for each PEC.
    :param pec_port: port of this machine at which people reach them; 0 for any.
    """

    central: Path | None = None
    sources: tuple[Named, ...] = ()
    attachments: tuple[Named, ...] = ()
    server: str = "auto"
    major: int | None = None
    binaries: Path | None = None
    jobs: int = 0
    scale: float = 1.0
    profile: str = "pec"
    overrides: tuple[Path, ...] = ()
    keep_running: bool = False
    scope: str = ALL
    keep_passwords: bool = False
    final: bool = False
    accepted: Mapping[str, str] = field(default_factory=dict)
    confirmations: Path | None = None
    engine: str = SQL
    pec_jar: Path | None = None
    pec_memory: int = PEC_MEMORY
    pec_port: int = PORT

    @classmethod
    def parse(
        cls,
        *,
        central: str,
        sources: Sequence[str],
        attachments: Sequence[str] = (),
        accept: Sequence[str] = (),
        reason: Sequence[str] = (),
        **others: Any,
    ) -> Options:
        """Make options from the words of the command line; everything that can be checked without a backup is.

        :raises ConfigError: with all that is wrong with them.
        """
        path = Path(central).resolve() if central else None
        named = tuple(_named(source) for source in sources)
        files = tuple(_named(directory) for directory in attachments)
        if path is not None:  # which may be called by its file's name, like the others
            files = tuple((CENTRAL if name == _stem(path) else name, directory) for name, directory in files)
        options = cls(path, named, files, accepted=accepted_of(accept, reason), **others)
        if options.engine == PEC and options.scope == ALL:  # what PEC sends is the vendor's to say
            options = replace(options, scope=VENDOR)
        if problems := list(options._problems()):
            raise ConfigError(
                text(pt="O pedido não pode ser atendido.", en="What was asked cannot be done."),
                details=problems,
                next_step="invoke --help homolog",
            )
        known = profile.load(options.profile, options.overrides)
        scopes.find_scope(known, options.scope, options.keep)
        preflight.check_ids(preflight.all_checks(options.profile), options.accepted)
        return options

    @property
    def parallel(self) -> int:
        """Connections to use at once."""
        return self.jobs or os.cpu_count() or 1

    @property
    def keep(self) -> frozenset[str]:
        """Policies of the profile that are not wanted."""
        return frozenset({_PASSWORDS} if self.keep_passwords else ())

    def _problems(self) -> Iterator[str]:
        if (self.central is None) != (not self.sources):
            yield text(
                pt="--central e --source vão juntos: um central e pelo menos uma origem.",
                en="--central and --source go together: one central and at least one source.",
            )
        if self.final and self.central is None:
            yield text(pt="--final exige backups reais (--central)", en="--final demands real backups (--central)")
        for path in (self.central, *(path for _, path in self.sources)):
            if path is not None and not (path.is_file() or path.is_dir()):
                yield text(pt=f"não é arquivo nem pasta: {path}", en=f"neither a file nor a folder: {path}")
        yield from self._problems_of_names()
        if self.server not in choose.PROVIDERS:
            yield f"--server {self.server}: {', '.join(choose.PROVIDERS)}"
        yield from self._problems_of_engine()
        if self.jobs < 0:
            yield f"--jobs {self.jobs}"
        if self.binaries is not None and not self.binaries.is_dir():
            yield f"--binaries {self.binaries}"
        if self.central is None:
            try:
                world(self.scale)
            except ValueError as ex:
                yield f"--scale {self.scale:g}: {ex}"

    def _problems_of_engine(self) -> Iterator[str]:
        if self.engine not in ENGINES:
            yield f"--engine {self.engine}: {', '.join(ENGINES)}"
        if self.engine != PEC:
            return
        if self.pec_jar is None or not self.pec_jar.is_file():
            yield text(
                pt="--engine pec exige o instalador do PEC: --pec-jar ARQUIVO",
                en="--engine pec demands the installer of PEC: --pec-jar FILE",
            )
        if self.server == "embedded" or self.binaries is not None:
            yield text(
                pt="--engine pec usa o Docker: sem --server embedded nem --binaries",
                en="--engine pec uses Docker: neither --server embedded nor --binaries",
            )
        if self.attachments:
            yield text(
                pt="--engine pec não leva anexos: o PEC os leva, ou não; não se sabe",
                en="--engine pec carries no attachments: PEC does, or does not; that is unknown",
            )
        if self.pec_memory < _LEAST_MEMORY:
            yield f"--pec-memory {self.pec_memory}: {_LEAST_MEMORY} MB"
        if not 0 <= self.pec_port < 1 << 16:
            yield f"--pec-port {self.pec_port}"

    def _problems_of_names(self) -> Iterator[str]:
        names = [name for name, _ in self.sources]
        how = " (--source NAME=FILE)"
        for name in dict.fromkeys(names):
            if not _NAME.fullmatch(name):
                yield text(pt=f"nome que não serve: {name!r}", en=f"a name that will not do: {name!r}") + how
            elif name in _RESERVED:
                yield text(pt=f"o nome {name} tem outro uso", en=f"the name {name} has another use") + how
            elif names.count(name) > 1:
                yield text(pt=f"duas origens se chamam {name}", en=f"two sources are called {name}") + how
        for name, directory in self.attachments:
            if self.central is None or name not in {CENTRAL, *names}:
                yield text(pt=f"anexos de ninguém: {name}", en=f"attachments of nobody: {name}")
            if not directory.is_dir():
                yield text(pt=f"não é uma pasta: {directory}", en=f"no folder: {directory}")


def accepted_of(accept: Sequence[str], reason: Sequence[str]) -> dict[str, str]:
    """The accepted warnings with their reasons, which are given in the same order.

    :raises ConfigError: one lacks its reason.
    """
    if len(accept) != len(reason) or not all(why.strip() for why in reason):
        raise ConfigError(
            text(
                pt="Cada aviso aceito (--accept) precisa do seu motivo (--reason), na mesma ordem.",
                en="Each accepted warning (--accept) needs its reason (--reason), in the same order.",
            ),
            details=list(accept),
        )
    return {name: why.strip() for name, why in zip(accept, reason, strict=True)}


def options_of(run: Run) -> Options:
    """What a run was asked."""
    asked = run.load("run")["asked"]
    kept = {f.name: asked[f.name] for f in fields(Options) if f.name in asked}
    for name in ("central", "binaries", "confirmations", "pec_jar"):
        kept[name] = Path(kept[name]) if kept.get(name) else None
    for name in ("sources", "attachments"):
        kept[name] = tuple((called, Path(path)) for called, path in kept.get(name, ()))
    kept["overrides"] = tuple(Path(path) for path in kept.get("overrides", ()))
    return Options(**kept)


def _named(word: str) -> Named:
    """``NAME=PATH``, or a path that is called by its stem; what is there as a whole is a path."""
    name, equals, path = word.partition("=")
    if equals and not Path(word).exists():
        return name.strip(), Path(path).resolve()
    whole = Path(word).resolve()
    return _stem(whole), whole


def _stem(path: Path) -> str:
    """The file's name without the endings that backups have."""
    while path.suffix.lower() in _ENDINGS:
        path = path.with_suffix("")
    return path.name
