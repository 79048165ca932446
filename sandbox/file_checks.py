"""Checks of backup files, before anything is restored (phase C of the checklist).

Each function answers one check of one backup and decides nothing: whoever asks shows the answers and stops at those
that block.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from merge.language import counted, text
from sandbox import archive as archives
from sandbox.host_checks import HostCheck

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from merge.attachments import Survey
    from sandbox.intake import Backup


def checksum(backup: Backup, where: str) -> HostCheck:
    """C-01: the SHA-256 of the file is the one in the file ``<backup>.sha256`` beside it, if that is there."""
    values = {"sha256": backup.sha256}
    beside = backup.path.with_name(f"{backup.path.name}.sha256")
    if not beside.is_file():
        return HostCheck(
            "C-01",
            where,
            "recorded",
            values=values,
            message=text(
                pt="Não há um .sha256 da origem para comparar; o calculado aqui fica registrado.",
                en="There is no .sha256 of the origin to compare with; the one computed here is recorded.",
            ),
        )
    said = _said(beside, backup.path.name)
    values["said"] = said or "?"
    if said is None:
        return HostCheck(
            "C-01",
            where,
            "blocked",
            values=values,
            message=text(
                pt=f"{beside.name} não traz o sha256 de {backup.path.name}.",
                en=f"{beside.name} does not hold the sha256 of {backup.path.name}.",
            ),
        )
    if said != backup.sha256:
        return HostCheck(
            "C-01",
            where,
            "blocked",
            values=values,
            message=text(
                pt=f"{backup.path.name} não é o arquivo da origem: o sha256 é outro. Copie-o de novo.",
                en=f"{backup.path.name} is not the file of the origin: its sha256 is another. Copy it again.",
            ),
        )
    return HostCheck("C-01", where, "passed", values=values)


def _said(beside: Path, name: str) -> str | None:
    """The hash of a file in a list as sha256sum writes it, also on Windows, or of one hash alone."""
    if beside.stat().st_size > 1 << 20:
        return None
    raw = beside.read_bytes()
    written = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", errors="replace")
    found = re.findall(r"^\\?([0-9a-fA-F]{64})(?:[ \t]+\*?(.*?))?[ \t]*$", written.replace("\r", ""), re.MULTILINE)
    named = [digest for digest, path in found if re.split(r"[/\\]", path)[-1] == name]
    alone = [digest for digest, path in found if not path] if len(found) == 1 else []
    hashes = {digest.lower() for digest in named or alone}
    return hashes.pop() if len(hashes) == 1 else None


def versions(central: Backup, backup: Backup, where: str, major: int) -> HostCheck:
    """C-05: whether the sandbox is of the same PostgreSQL major version as the central (9 for 9.6) and not older.

    :param major: the sandbox's.
    """
    numbers = {"sandbox": major}
    if backup.dumped_major is None:
        return HostCheck(
            "C-05",
            where,
            "not_available",
            numbers,
            message=text(
                pt="O backup não diz de que versão do PostgreSQL é.",
                en="The backup does not tell its PostgreSQL version.",
            ),
        )
    numbers["dumped"] = backup.dumped_major
    if backup.dumped_major > major:
        return HostCheck(
            "C-05",
            where,
            "blocked",
            numbers,
            message=text(
                pt=f"O backup é do PostgreSQL {backup.dumped_major}; a sandbox, {major}, é mais velha.",
                en=f"The backup is of PostgreSQL {backup.dumped_major}; the sandbox, {major}, is older.",
            ),
        )
    if backup == central and backup.dumped_major != major:
        return HostCheck(
            "C-05",
            where,
            "warned",
            numbers,
            message=text(
                pt=f"A produção usa o PostgreSQL {backup.dumped_major} e a sandbox o {major}: o ensaio é completo, mas "
                "o resultado não poderá ser promovido.",
                en=f"Production uses PostgreSQL {backup.dumped_major} and the sandbox {major}: the rehearsal is full, "
                "but its result cannot be promoted.",
            ),
        )
    return HostCheck("C-05", where, "passed", numbers)


def complete(backup: Backup, where: str, essential: Collection[str]) -> HostCheck:
    """C-06: the backup holds the rows of the essential tables, and of every table that it defines.

    :param essential: names as `Backup.tables` has them, e.g. those of the profile.
    """
    missing = tuple(sorted(set(essential) - set(backup.tables)))
    numbers = {"entries": backup.entries, "tables": len(backup.tables)}
    if missing:
        return HostCheck(
            "C-06",
            where,
            "blocked",
            numbers,
            details=missing,
            message=text(
                pt="O backup não traz os dados de tabelas sem as quais não há prontuário.",
                en="The backup does not hold the data of tables without which there is no record.",
            ),
        )
    if backup.archive_version is None:
        return HostCheck("C-06", where, "passed", numbers)
    entries = archives.read(backup.readable).entries
    filled = {(e.namespace, e.tag) for e in entries if e.desc == "TABLE DATA"}
    bare = sorted(
        e.tag
        for e in entries
        if e.desc == "TABLE" and (e.namespace, e.tag) not in filled and not _has_no_rows(e.definition)
    )
    numbers["without_data"] = len(bare)
    if bare:
        return HostCheck(
            "C-06",
            where,
            "warned",
            numbers,
            details=tuple(bare[:100]),
            message=text(
                pt=f"{counted(len(bare), 'tabela está', 'tabelas estão')} no backup sem dados: "
                "ele foi feito com exclusões.",
                en=f"{counted(len(bare), 'table is', 'tables are')} in the backup without data: "
                "it was made with exclusions.",
            ),
        )
    return HostCheck("C-06", where, "passed", numbers)


def _has_no_rows(definition: str) -> bool:
    """True for tables whose rows pg_dump never writes, or not as PEC calls it."""
    return definition.startswith("CREATE UNLOGGED TABLE") or "\nPARTITION BY " in definition


def encoding(backup: Backup, where: str) -> HostCheck:
    """C-07: the encoding, and the collation of the database that was dumped, as far as the backup tells."""
    locale = _locale(backup)
    values = {"encoding": backup.encoding, **({"collation": locale} if locale else {})}
    if backup.encoding.upper() not in ("UTF8", "UTF-8", "UNICODE"):
        return HostCheck(
            "C-07",
            where,
            "blocked",
            values=values,
            message=text(
                pt="O backup não está em UTF8: faça-o de novo com pg_dump --encoding=UTF8.",
                en="The backup is not UTF8: take it again by pg_dump --encoding=UTF8.",
            ),
        )
    if locale is None:
        return HostCheck(
            "C-07",
            where,
            "recorded",
            values=values,
            message=text(
                pt="O backup não diz a ordenação (collation) da base.",
                en="The backup does not tell the base's collation.",
            ),
        )
    if locale.split(".")[0] in ("C", "POSIX"):
        return HostCheck("C-07", where, "recorded", values=values)
    windows = text(
        pt=" O nome é do Windows e não existe em Linux: para a produção, use a ordenação do servidor dela.",
        en=" The name is one of Windows and unknown to Linux: in production, use its own server's collation.",
    )
    return HostCheck(
        "C-07",
        where,
        "recorded",
        values=values,
        message=text(
            pt=f"A base ordena textos por {locale}; a sandbox, por C em UTF8. As linhas são as mesmas; listas por nome "
            "podem sair em outra ordem (maiúsculas e acentos), e índices de texto são refeitos ao restaurar.",
            en=f"The base sorts texts by {locale}; the sandbox by C, in UTF8. Rows are the same; lists by name may "
            "come in another order (capitals and accents), and indexes of texts are made anew when it is restored.",
        )
        + (windows if _is_windows(locale) else ""),
    )


def _locale(backup: Backup) -> str | None:
    if backup.archive_version is None:
        return None
    for entry in archives.read(backup.readable):
        if entry.desc == "DATABASE":
            found = re.search(r"\b(?:LC_COLLATE|LOCALE) = '([^']*)'", entry.definition)
            return found[1] if found else None
    return None


def _is_windows(locale: str) -> bool:
    """True for names such as ``Portuguese_Brazil.1252``; those of other systems are such as ``pt_BR.UTF-8``."""
    return re.fullmatch(r"[A-Z][a-z]+(?: \([^)]*\))?_[A-Z].*\.\d+|[A-Z][a-z]+, [A-Z].*", locale) is not None


def created(backup: Backup) -> datetime | None:
    """When the dump was begun, by the clock and in the time zone of where it was made; None if it does not tell."""
    if backup.archive_version is None:
        return None
    try:
        return datetime.fromisoformat(archives.read(backup.readable).created)
    except ValueError:
        return None


def age(
    backup: Backup,
    where: str,
    last_write: datetime | None,
    *,
    tolerance: timedelta = timedelta(minutes=5),
    old: timedelta = timedelta(days=3),
) -> HostCheck:
    """C-08f: the backup was made after the last write that is in it, and soon after.

    :param last_write: the latest time found in the data, without a zone, in the installation's local time, as the
        dump's own is. With a zone it is taken as that of this machine.
    :param tolerance: by how much it may be later than the dump's begin, for clocks of clients.
    :param old: a longer gap means an old copy, or a clock that was changed.
    """
    began = created(backup)
    if began is None or last_write is None:
        return HostCheck(
            "C-08f",
            where,
            "not_available",
            message=text(
                pt="Não há como comparar a hora do backup com a última escrita.",
                en="The time of the backup cannot be compared with that of the last write.",
            ),
        )
    if last_write.tzinfo is not None:
        last_write = last_write.astimezone().replace(tzinfo=None)
    gap = began - last_write
    values = {"created": began.isoformat(), "last_write": last_write.isoformat(timespec="seconds")}
    numbers = {"seconds": int(gap.total_seconds())}
    if gap < -tolerance:
        return HostCheck(
            "C-08f",
            where,
            "warned",
            numbers,
            values,
            text(
                pt="Há registros com hora posterior à do backup: algum relógio estava errado.",
                en="There are rows of a time after the backup's: some clock was wrong.",
            ),
        )
    if gap > old:
        return HostCheck(
            "C-08f",
            where,
            "warned",
            numbers,
            values,
            text(
                pt=f"A última escrita é de {counted(gap.days, 'dia', 'dias')} antes do backup: "
                "confirme que a base não é antiga.",
                en=f"The last write is {counted(gap.days, 'day', 'days')} before the backup: "
                "make sure that the base is not an old one.",
            ),
        )
    return HostCheck("C-08f", where, "passed", numbers, values)


def attachments(survey: Survey, where: str) -> HostCheck:
    """C-09f: the files that rows point to were delivered."""
    numbers = {
        "rows": survey.rows,
        "missing": survey.missing,
        "unclaimed": survey.unclaimed,
        **({} if survey.files is None else {"files": survey.files, "bytes": survey.size}),
    }
    if survey.files is None and survey.rows:
        return HostCheck(
            "C-09f",
            where,
            "warned",
            numbers,
            message=text(
                pt=f"{counted(survey.rows, 'linha aponta', 'linhas apontam')} para anexos que podem "
                "estar fora do banco, e não veio pasta alguma. "
                "Indique-a com --attachments NOME=PASTA, ou confirme que a instalação não usa anexos em pasta.",
                en=f"{counted(survey.rows, 'row points', 'rows point')} to attachments that may be "
                "outside the database, and no directory was delivered. "
                "Name it by --attachments NAME=DIR, or make sure that the installation keeps none in one.",
            ),
        )
    if survey.files and survey.missing == survey.rows:
        return HostCheck(
            "C-09f",
            where,
            "warned",
            numbers,
            details=survey.missing_keys,
            message=text(
                pt="Nenhuma linha tem o seu arquivo na pasta entregue: ou a pasta é outra, ou os nomes não são os que "
                "o perfil declara ([[attachment]]).",
                en="No row has its file in the directory that was delivered: either it is another directory, or names "
                "are not those that the profile declares ([[attachment]]).",
            ),
        )
    if survey.missing or survey.unclaimed:
        return HostCheck(
            "C-09f",
            where,
            "warned",
            numbers,
            details=survey.missing_keys,
            message=text(
                pt=f"{counted(survey.missing, 'linha aponta', 'linhas apontam')} para arquivos que não foram "
                f"entregues; {counted(survey.unclaimed, 'arquivo', 'arquivos')} de linha nenhuma, a guardar à parte.",
                en=f"{counted(survey.missing, 'row points', 'rows point')} to files that were not delivered; "
                f"{counted(survey.unclaimed, 'file', 'files')} of no row, to be kept apart.",
            ),
        )
    return HostCheck("C-09f", where, "passed", numbers)
