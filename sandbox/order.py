"""Which base should be the central, and in which order the others come: proposed from their backups, with reasons.

The vendor's guide says: the largest base receives. Largest is by the rows that it holds, as text; a file's size would
also say how well it was compressed.
"""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from merge.errors import BackupError
from merge.language import counted, text
from sandbox import intake
from sandbox.contents import Contents

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sandbox.intake import Backup


@dataclass(frozen=True)
class Candidate:
    """One backup, what it holds, and a name for its base that is unique among them."""

    name: str
    backup: Backup
    contents: Contents


@dataclass(frozen=True)
class Proposal:
    """Who should be the central, and who comes after whom.

    :param compared: what was compared: bytes of rows as ``text`` (or as ``inserts``, or as ``stored`` in the archives),
        or, where backups have no such measure in common, the ``file`` sizes.
    :param size: by name, what was compared, in bytes.
    :param reasons: why, for a person.
    """

    central: Candidate
    sources: tuple[Candidate, ...]
    compared: Literal["text", "inserts", "stored", "file"]
    size: dict[str, int]
    reasons: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command line of the rehearsal; empty if there is nothing to merge."""
        if not self.sources:
            return ""
        words = ["invoke", "homolog", "--central", str(self.central.backup.path)]
        for source in self.sources:
            words += ["--source", f"{source.name}={source.backup.path}"]
        return shlex.join(words)


def find(places: Sequence[Path]) -> list[Path]:
    """The backups that are meant by files and folders: of a folder that is not itself one, everything in it.

    Hidden files, checksums (``.sha256``) and folders that are no backups are passed over.

    :raises BackupError: listing every place that does not exist.
    """
    missing = [str(place) for place in places if not place.exists()]
    if missing:
        raise BackupError(
            text(
                pt=f"{counted(len(missing), 'arquivo não existe', 'arquivos não existem')}.",
                en=f"{counted(len(missing), 'file does', 'files do')} not exist.",
            ),
            details=missing,
        )
    found: dict[Path, None] = {}
    for place in places:
        if not place.is_dir() or (place / "toc.dat").exists():
            found[place.resolve()] = None
            continue
        for path in sorted(place.iterdir()):
            wanted = (path / "toc.dat").exists() if path.is_dir() else path.suffix != ".sha256"
            if wanted and not path.name.startswith("."):
                found[path.resolve()] = None
    if not found:
        raise BackupError(
            text(pt="Não há backups nesse lugar.", en="There are no backups there."), details=[str(p) for p in places]
        )
    return list(found)


def examine(
    paths: Sequence[Path], work: Path, on_progress: Callable[[int, int], None] | None = None
) -> list[Candidate]:
    """Inspect backups.

    :param work: private folder for what is taken out of compressed files; it must live as long as the backups.
    :param on_progress: called with bytes read and bytes in all.
    :raises BackupError: listing everything that is wrong with any of them.
    """
    backups = intake.inspect_all({str(path): path for path in paths}, work=work, on_progress=on_progress)
    return _named([Candidate(backup.name, backup, Contents.of(backup)) for backup in backups.values()])


def _named(candidates: list[Candidate]) -> list[Candidate]:
    """With names that are unique: of files that are called alike, also by their folders, at last by a number."""
    for longer in (lambda c: f"{c.backup.path.parent.name}-{c.name}", None):
        count = Counter(c.name for c in candidates)
        if longer is not None:
            candidates = [replace(c, name=longer(c)) if count[c.name] > 1 else c for c in candidates]
    return [replace(c, name=f"{c.name}-{n}") if count[c.name] > 1 else c for n, c in enumerate(candidates, 1)]


def propose(candidates: Sequence[Candidate]) -> Proposal:
    """Propose the largest as the central, the others from the smallest to the largest.

    :param candidates: at least one.
    """
    compared, size = _compared(candidates)
    central, *others = sorted(candidates, key=lambda c: (-size[c.name], c.name))
    sources = tuple(sorted(others, key=lambda c: (size[c.name], c.name)))
    return Proposal(central, sources, compared, size, tuple(_reasons(central, sources, compared, size)))


def _compared(
    candidates: Sequence[Candidate],
) -> tuple[Literal["text", "inserts", "stored", "file"], dict[str, int]]:
    units = {c.contents.unit for c in candidates}
    if len(units) == 1:
        return units.pop(), {c.name: c.contents.size for c in candidates}
    return "file", {c.name: c.backup.size for c in candidates}


def _reasons(central: Candidate, sources: Sequence[Candidate], compared: str, size: dict[str, int]) -> list[str]:
    if not sources:
        return [text(pt="Há um backup só: nada a unificar.", en="There is only one backup: nothing to merge.")]
    reasons = [
        text(
            pt=f"{central.name} deve ser o central: é a maior base ({_megabytes(size[central.name])}), e o guia da "
            "unificação manda que a maior receba as outras.",
            en=f"{central.name} should be the central: it is the largest base ({_megabytes(size[central.name])}), and "
            "the guide of the unification says that the largest receives the others.",
        ),
        {
            "text": text(
                pt="Foram comparadas as linhas das tabelas, sem compressão, e não o tamanho dos arquivos.",
                en="The rows of the tables were compared, uncompressed, and not the sizes of the files.",
            ),
            "inserts": text(
                pt="Foram comparados os comandos INSERT, sem compressão.",
                en="The INSERT statements were compared, uncompressed.",
            ),
            "stored": text(
                pt="Foram comparados os dados das tabelas como estão nos arquivos, comprimidos.",
                en="The data of the tables were compared as they are in the files, compressed.",
            ),
            "file": text(
                pt="Os formatos diferem e só o tamanho dos arquivos pôde ser comparado: confirme quem é a maior base.",
                en="The formats differ and only file sizes could be compared: say which is largest.",
            ),
        }[compared],
    ]
    if len(sources) > 1:
        reasons.append(
            text(
                pt="As outras vêm da menor para a maior: um problema que vale para todas aparece em minutos, e a falha "
                "de uma custa só o tempo dela, porque as anteriores já estão unificadas e provadas.",
                en="The others come from the smallest to the largest: a problem that all have shows after minutes, "
                "and the failure of one costs its own time only, for those before it are merged and proved.",
            )
        )
    others = [size[c.name] for c in sources]
    if others and size[central.name] < 1.1 * max(others):
        reasons.append(
            text(
                pt="A diferença para a segunda maior é menor que 10 %: qualquer das duas pode ser o central.",
                en="The second largest is less than 10 % smaller: either of the two may be the central.",
            )
        )
    return reasons


def central_warning(proposal: Proposal, central: Path) -> str | None:
    """Check A-05: what to say if the base chosen as the central is not the largest; None if it is."""
    chosen = next((c for c in proposal.sources if c.backup.path == central), None)
    if chosen is None:
        return None
    ours, largest = proposal.size[chosen.name], proposal.size[proposal.central.name]
    return text(
        pt=f"O central escolhido, {chosen.name} ({_megabytes(ours)}), não é a maior base: {proposal.central.name} tem "
        f"{_megabytes(largest)}. O guia da unificação manda que a maior receba as outras.",
        en=f"The central chosen, {chosen.name} ({_megabytes(ours)}), is not the largest base: {proposal.central.name} "
        f"has {_megabytes(largest)}. The guide of the unification says that the largest receives the others.",
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB".translate(str.maketrans(",.", text(pt=".,", en=",.")))
