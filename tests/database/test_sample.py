"""The sample on real servers: the whole schema, plausible and deterministic rows, the planted overlap, the dumps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from sandbox.sample import Installation, create_schema, fill, make_samples, overlap, world
from sandbox.sample.fill import _SEQUENCE, _resource
from sandbox.sample.overlap import FICHAS
from sandbox.server import ADMIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg

    from sandbox.server import Server

pytestmark = pytest.mark.slow

WORLD = world(scale=0.4, seed=7)
CENTRAL, SOURCE, OTHER = WORLD
OVERLAP = overlap(WORLD)[0]


def _name(installation: Installation) -> str:
    return f"test_{installation.name.replace('-', '_')}"


@pytest.fixture(scope="module")
def filled(server: Server) -> Iterator[Server]:
    """A server with the three installations filled."""
    yield from _filled(server, WORLD)


@pytest.fixture(scope="module")
def filled18(server18: Server) -> Iterator[Server]:
    """PostgreSQL 18 with the source filled."""
    yield from _filled(server18, (SOURCE,))


def _filled(server: Server, installations: tuple[Installation, ...]) -> Iterator[Server]:
    try:
        for installation in installations:
            server.create_database(_name(installation), ADMIN)
            with server.connect(_name(installation)) as conn:
                create_schema(conn)
                fill(conn, installation, WORLD)
        yield server
    finally:
        for installation in installations:
            if server.has_database(_name(installation)):
                server.drop_database(_name(installation))


def _rows(server: Server, installation: Installation, query: str) -> list[tuple[Any, ...]]:
    with server.connect(_name(installation)) as conn:
        return conn.execute(query.encode()).fetchall()


def _tables(conn: psycopg.Connection[tuple[Any, ...]], kinds: str = "r") -> list[str]:
    found = conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = ANY (%s) ORDER BY 1",
        [list(kinds)],
    )
    return [name for (name,) in found]


def _union(names: list[str], template: str) -> sql.Composed:
    return sql.SQL(" UNION ALL ").join(
        sql.SQL(template).format(name=sql.Literal(n), table=sql.Identifier(n))
        for n in names  # type: ignore[arg-type]
    )


def _digests(server: Server, installation: Installation) -> dict[str, object]:
    """What every table, materialised view, sequence and large object holds."""
    with server.connect(_name(installation)) as conn:
        query = _union(
            _tables(conn, "rm"),
            "SELECT {name}, md5(string_agg(h, '' ORDER BY h COLLATE \"C\"))"
            "  FROM (SELECT md5(t::text) AS h FROM {table} t) q",
        )
        digests: dict[str, object] = dict(conn.execute(query).fetchall())
        digests |= dict(conn.execute(_union(_tables(conn, "S"), "SELECT {name}, last_value FROM {table}")).fetchall())
        large = "SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY oid"
        return digests | {"large objects": conn.execute(large).fetchall()}


def test_schema_is_whole(filled: Server) -> None:
    with filled.connect(_name(SOURCE)) as conn:
        assert len(_tables(conn)) == 1106
        assert len(_tables(conn, "m")) == 6
        assert len(_tables(conn, "S")) == 582
        constraints = conn.execute(
            "SELECT contype::text, count(*) FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace GROUP BY contype"
        )
        count = dict(constraints.fetchall())
        assert count["f"] == 1307
        assert count["p"] == len(_tables(conn)) - 26
        assert conn.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (169,)
        assert conn.execute(
            "SELECT count(*) FROM pg_attrdef WHERE pg_get_expr(adbin, adrelid) ~ 'nextval'"
        ).fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'sample'").fetchone() == (0,)


def test_most_tables_have_rows(filled: Server) -> None:
    for installation in WORLD:
        with filled.connect(_name(installation)) as conn:
            rows = dict(conn.execute(_union(_tables(conn), "SELECT {name}, count(*) FROM {table}")).fetchall())
        assert sum(1 for n in rows.values() if n) > 600
        assert rows["tb_cidadao"] == installation.citizens
        assert rows["tl_cds_cidadao_resposta"] == rows["tb_cds_cidadao_resposta"] == max(rows.values())


def test_foreign_keys_hold(filled: Server) -> None:
    for installation in WORLD:
        with filled.connect(_name(installation)) as conn:
            keys = conn.execute(
                "SELECT conname || ' of ' || conrelid::regclass,"
                "       format('SELECT count(*) FROM %s a WHERE (%s) IS NOT NULL"
                "               AND NOT EXISTS (SELECT 1 FROM %s b WHERE %s)',"
                "              conrelid::regclass, k.a, confrelid::regclass, k.pairs)"
                "  FROM pg_constraint c, LATERAL ("
                "       SELECT string_agg(format('a.%I', x.attname), ', ') AS a,"
                "              string_agg(format('b.%I = a.%I', y.attname, x.attname), ' AND ') AS pairs"
                "         FROM unnest(c.conkey, c.confkey) AS u(one, other)"
                "         JOIN pg_attribute x ON x.attrelid = c.conrelid AND x.attnum = u.one"
                "         JOIN pg_attribute y ON y.attrelid = c.confrelid AND y.attnum = u.other) k"
                " WHERE contype = 'f'"
            ).fetchall()
            broken = [name for name, query in keys if conn.execute(query.encode()).fetchone() != (0,)]
        assert len(keys) == 1307
        assert broken == []


def test_same_rows_again_and_on_another_version(filled: Server, filled18: Server) -> None:
    """Two installations of one name and seed are equal to the last bit, whatever server makes them."""
    once = _digests(filled, SOURCE)
    other_version = _digests(filled18, SOURCE)
    assert [name for name in once if once[name] != other_version[name]] == []
    again = "test_again"
    filled.create_database(again, ADMIN)
    try:
        with filled.connect(again) as conn:
            create_schema(conn)
            fill(conn, SOURCE, WORLD)
        twice = _digests(filled, Installation("again", 1, 7, SOURCE.citizens))
    finally:
        filled.drop_database(again)
    assert [name for name in once if once[name] != twice[name]] == []


def test_another_seed_gives_other_people(filled: Server) -> None:
    seeded = world(scale=0.4, seed=8)
    name = "test_seed"
    filled.create_database(name, ADMIN)
    try:
        with filled.connect(name) as conn:
            create_schema(conn)
            fill(conn, seeded[1], seeded)
            other = conn.execute("SELECT co_seq_cidadao, no_cidadao, dt_nascimento FROM tb_cidadao").fetchall()
    finally:
        filled.drop_database(name)
    ours = _rows(filled, SOURCE, "SELECT co_seq_cidadao, no_cidadao, dt_nascimento FROM tb_cidadao")
    assert len(set(ours) & set(other)) < len(ours) / 20


def test_sequences_are_ahead_of_the_data(filled: Server) -> None:
    pairs = _SEQUENCE.findall(_resource("schema.sql"))
    used = 0
    with filled.connect(_name(SOURCE)) as conn:
        for sequence, table, column in pairs:
            top, last = conn.execute(
                sql.SQL("SELECT (SELECT max({}) FROM {}), last_value FROM {}").format(
                    sql.Identifier(column), sql.Identifier(table), sql.Identifier(sequence)
                )
            ).fetchone() or (None, 0)
            assert top is None or last >= top, sequence
            used += top is not None
    assert used > 250


def test_keys_of_installations_collide(filled: Server) -> None:
    keys = "SELECT co_seq_cidadao FROM tb_cidadao"
    source, central = set(_rows(filled, SOURCE, keys)), set(_rows(filled, CENTRAL, keys))
    assert (1,) in source
    assert source < central


def _valid_cpf(cpf: str) -> bool:
    for end in (9, 10):
        total = sum(int(d) * (end + 1 - i) for i, d in enumerate(cpf[:end])) % 11
        if int(cpf[end]) != (0 if total < 2 else 11 - total):
            return False
    return True


def test_documents_are_valid_and_obviously_synthetic(filled: Server) -> None:
    """Every CPF and CNS anywhere in an installation has right check digits and is of the synthetic range."""
    seen: set[str] = set()
    with filled.connect(_name(SOURCE)) as conn:
        columns = conn.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
            "   AND data_type IN ('character varying', 'character')"
            "   AND (column_name ~ '(^|_)(cpf|cns)(_|$)'"
            "        OR column_name IN ('nu_cartao_sus', 'ds_login', 'nu_documento'))"
            "   AND table_name IN (SELECT relname FROM pg_class WHERE relkind = 'r')"
        ).fetchall()
        for table, column in columns:
            query = sql.SQL("SELECT DISTINCT {c} FROM {t} WHERE {c} IS NOT NULL")
            for (value,) in conn.execute(query.format(c=sql.Identifier(column), t=sql.Identifier(table))):
                seen.add(value.strip())
    seen.discard("-")  # the warehouse: not informed
    cpfs, others = {v for v in seen if len(v) == 11}, {v for v in seen if len(v) != 11}
    assert len(cpfs) > SOURCE.citizens / 2
    assert len(others) > SOURCE.citizens / 2
    assert [c for c in cpfs if not (c.startswith("000") and _valid_cpf(c))] == []
    assert [
        c
        for c in others
        if not re.fullmatch(r"8980000\d{8}", c) or sum(int(d) * (15 - i) for i, d in enumerate(c)) % 11
    ] == []


def test_citizens_overlap_as_declared(filled: Server) -> None:
    """The planted kinds are found by what they look like, not by how they were made."""
    people = (
        "SELECT nu_cpf, nu_cns, no_cidadao_filtro, no_mae_filtro, dt_nascimento FROM tb_cidadao WHERE st_unificado = 0"
    )
    central, source = _rows(filled, CENTRAL, people), _rows(filled, SOURCE, people)
    cpfs = {p[0] for p in central if p[0]}
    cnss = {p[1] for p in central if p[1]}
    same = {p[2:] for p in central}
    documented = {p[2:] for p in central if p[0] or p[1]}
    kin = {p[3:]: p[2] for p in central}
    found = {
        "same_cpf": sum(p[0] in cpfs and p[1] in cnss for p in source),
        "cns_only": sum(p[0] is None and p[1] in cnss for p in source),
        "no_document": sum(not (p[0] or p[1]) and p[2:] in same - documented for p in source),
        "typo_digit": sum(
            p[0] is not None and p[0] not in cpfs and p[1] is None and p[2:] in documented for p in source
        ),
        "typo_name": sum(not (p[0] or p[1]) and p[2:] not in same and p[3:] in kin for p in source),
        "twin": sum(p[0] not in cpfs and p[2:] not in same and p[3:] in kin and bool(p[0] or p[1]) for p in source),
    }
    assert found == OVERLAP.citizens


def test_structure_is_known_to_the_central_under_other_keys(filled: Server) -> None:
    for query, least in (
        ("SELECT nu_cnes, co_seq_unidade_saude FROM tb_unidade_saude", OVERLAP.units),
        ("SELECT co_unico_equipe, co_seq_equipe FROM tb_equipe", OVERLAP.teams),
        ("SELECT nu_cpf, co_seq_prof FROM tb_prof", OVERLAP.professionals),
        ("SELECT ds_login, co_seq_usuario FROM tb_usuario", OVERLAP.professionals),
        ("SELECT co_unico_lotacao, co_ator_papel FROM tb_lotacao", OVERLAP.professionals),
        ("SELECT co_unico_cds_prof, co_seq_cds_prof FROM tb_cds_prof", OVERLAP.professionals),
    ):
        central, source = dict(_rows(filled, CENTRAL, query)), dict(_rows(filled, SOURCE, query))
        assert len(source) >= least
        assert source.keys() <= central.keys(), query
        assert sum(source[k] != central[k] for k in source) >= len(source) / 2, query
    shared = "SELECT co_prof FROM tb_lotacao GROUP BY 1 HAVING count(DISTINCT co_unidade_saude) > 1"
    assert len(_rows(filled, CENTRAL, shared)) >= 2


FICHA_TABLES = {
    2: "tb_cds_cad_individual",
    3: "tb_cds_cad_domiciliar",
    4: "tb_cds_ficha_atend_individual",
    5: "tb_cds_ficha_atend_odonto",
    6: "tb_cds_ficha_ativ_col",
    7: "tb_cds_ficha_proced",
    8: "tb_cds_ficha_visita_domiciliar",
    10: "tb_cds_ficha_atend_domiciliar",
    11: "tb_cds_aval_elegibilidade",
    12: "tb_cds_ficha_consumo_alimentar",
    13: "tb_cds_ficha_zika_microcefalia",
    14: "tb_cds_ficha_vacinacao",
}


def test_sent_fichas_are_in_the_central_with_the_same_bytes(filled: Server) -> None:
    assert {*FICHA_TABLES, 104} == set(FICHAS)
    for kind, table in FICHA_TABLES.items():
        query = f"SELECT co_unico_ficha FROM {table}"
        both = set(_rows(filled, SOURCE, query)) & set(_rows(filled, CENTRAL, query))
        assert len(both) == OVERLAP.fichas[kind], table
    query = (
        "SELECT co_unico_dado_serializado, im_dado_serializado, co_unico_ficha, tp_dado_transp,"
        "       nu_cnes_dado_serializado FROM tb_dado_transp"
    )
    ours = {row[0]: row[1:] for row in _rows(filled, SOURCE, query)}
    theirs = {row[0]: row[1:] for row in _rows(filled, CENTRAL, query)}
    assert len(ours.keys() & theirs.keys()) == sum(OVERLAP.fichas.values())
    assert all(ours[k] == theirs[k] for k in ours.keys() & theirs.keys())
    assert _rows(
        filled,
        SOURCE,
        "SELECT count(*) FROM tb_cds_visita_domiciliar v JOIN tb_cds_ficha_visita_domiciliar f"
        " ON f.co_seq_cds_ficha_visita_dom = v.co_cds_ficha_visita_domiciliar"
        " LEFT JOIN tb_dado_transp d ON d.co_unico_dado_serializado = f.co_unico_ficha"
        " WHERE d.co_seq_dado_transp IS NULL",
    ) == [(0,)]


def _ficha_content(
    conn: psycopg.Connection[tuple[Any, ...]], table: str, header: str, link: str
) -> set[tuple[Any, ...]]:
    """Rows of a ficha's table without their keys: local references become what they name."""
    replaced = {
        "tb_cds_prof": ("co_seq_cds_prof", "co_unico_cds_prof"),
        "tb_proced": ("co_seq_proced", "co_proced"),
        "tb_ciap": ("co_seq_ciap", "co_ciap"),
        "tb_pergunta": ("co_seq_pergunta", "ds_pergunta"),
        "tb_ad_destino": ("co_seq_ad_destino", "no_identificador"),
        "tb_ad_modalidade": ("co_seq_ad_modalidade", "no_identificador"),
        "tb_unidade_saude": ("co_seq_unidade_saude", "nu_cnes"),
    }
    local = {header, link, "co_prontuario"}
    columns = conn.execute(
        "SELECT a.attname, (SELECT r.relname FROM pg_constraint k JOIN pg_class r ON r.oid = k.confrelid"
        "                    WHERE k.contype = 'f' AND k.conrelid = a.attrelid AND k.conkey = ARRAY[a.attnum] LIMIT 1)"
        "  FROM pg_attribute a WHERE attrelid = %s::regclass AND attnum > 0",
        [table],
    ).fetchall()
    parts = [sql.SQL("h.co_unico_ficha")]
    for column, target in columns:
        if target in replaced:
            key, value = replaced[target]
            parts.append(
                sql.SQL("(SELECT {} FROM {} x WHERE x.{} = t.{})::text").format(
                    *map(sql.Identifier, (value, target, key, column))
                )
            )
        elif column not in local and not column.startswith("co_seq_"):
            parts.append(sql.SQL("t.{}::text").format(sql.Identifier(column)))
    query = sql.SQL("SELECT {} FROM {} t JOIN {} h ON h.{} = t.{}").format(
        sql.SQL(", ").join(parts), *map(sql.Identifier, (table, header, _key(conn, header), link))
    )
    return set(conn.execute(query).fetchall())


def _key(conn: psycopg.Connection[tuple[Any, ...]], table: str) -> str:
    found = conn.execute(
        "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
        " WHERE i.indisprimary AND i.indrelid = %s::regclass",
        [table],
    ).fetchone()
    assert found is not None
    return str(found[0])


@pytest.mark.parametrize(
    ("kind", "table", "link", "each"),
    [
        (2, "tb_cds_cad_individual", "co_seq_cds_cad_individual", 1),
        (2, "tb_cds_cidadao_resposta", "co_cds_cad_individual", 30),
        (3, "tb_cds_domicilio_resposta", "co_cds_cad_domiciliar", 14),
        (3, "tb_cds_domicilio_familia", "co_cds_cad_domiciliar", 1),
        (4, "tb_cds_atend_individual", "co_cds_ficha_atend_individual", 6),
        (5, "tb_cds_atend_odonto", "co_cds_ficha_atend_odonto", 8),
        (6, "tb_cds_ativ_col_participante", "co_cds_ficha_ativ_col", 11),
        (7, "tb_cds_proced", "co_cds_ficha_proced", 5),
        (8, "tb_cds_visita_domiciliar", "co_cds_ficha_visita_domiciliar", 1),
        (10, "tb_cds_atend_domiciliar", "co_cds_ficha_atend_domiciliar", 5),
        (14, "tb_cds_vacinacao", "co_cds_ficha_vacinacao", 1),
    ],
)
def test_rows_of_sent_fichas_are_identical_in_the_central(
    filled: Server, kind: int, table: str, link: str, each: int
) -> None:
    header = FICHA_TABLES[kind]
    contents = []
    for installation in (SOURCE, CENTRAL):
        with filled.connect(_name(installation)) as conn:
            contents.append(_ficha_content(conn, table, header, link))
    both = {row[0] for row in contents[0]} & {row[0] for row in contents[1]}
    assert len(both) == OVERLAP.fichas[kind]
    source, central = ({row for row in content if row[0] in both} for content in contents)
    assert source == central
    assert len(source) > each * len(both) * 0.9  # answers of one ficha may be equal


def test_catalogs_agree_but_for_keys_and_a_few_rows(filled: Server) -> None:
    moved = 0
    for table, natural in (
        ("tb_proced", "co_proced"),
        ("tb_medicamento", "no_principio_ativo"),
        ("tb_ciap", "co_ciap"),
        ("tb_tipo_equipe", "nu_ms"),
        ("tb_imunobiologico_fabricante", "no_fabricante"),
        ("tb_pergunta", "ds_pergunta"),
    ):
        with filled.connect(_name(SOURCE)) as conn:
            key = _key(conn, table)
        query = f"SELECT {natural}, {key} FROM {table}"
        central, source = dict(_rows(filled, CENTRAL, query)), dict(_rows(filled, SOURCE, query))
        assert len(source.keys() - central.keys()) == (table in OVERLAP.catalog_rows), table
        moved += sum(central[k] != source[k] for k in source.keys() & central.keys())
    assert moved > 100
    conduct = "SELECT co_cds_tipo_conduta, no_cds_tipo_conduta FROM tb_cds_tipo_conduta"
    assert len(set(_rows(filled, SOURCE, conduct)) - set(_rows(filled, CENTRAL, conduct))) == 1
    migrations = "SELECT id, orderexecuted, md5sum FROM tb_migracao"
    assert sorted(_rows(filled, SOURCE, migrations)) == sorted(_rows(filled, CENTRAL, migrations))
    local = (
        "SELECT count(*) FROM tb_receita_medicamento r JOIN tb_medicamento m ON m.co_seq_medicamento = r.co_medicamento"
        " WHERE m.no_principio_ativo LIKE '%LOCAL%'"
    )
    assert _rows(filled, SOURCE, local)[0][0] > 0


def test_audit_names_rows_that_are_gone(filled: Server) -> None:
    for query in (
        "SELECT count(*) FROM ta_cidadao a"
        " WHERE NOT EXISTS (SELECT 1 FROM tb_cidadao c WHERE c.co_seq_cidadao = a.co_seq_cidadao)",
        "SELECT count(*) FROM ta_agendado a WHERE co_tipo_auditoria = 'D'"
        " AND NOT EXISTS (SELECT 1 FROM tb_agendado c WHERE c.co_seq_agendado = a.co_seq_agendado)",
        "SELECT count(*) FROM tb_auditoria_evento e WHERE tp_registro_afetado = 1"
        " AND NOT EXISTS (SELECT 1 FROM tb_cidadao c WHERE c.co_seq_cidadao::text = e.co_registro_afetado)",
        "SELECT count(*) FROM tb_arquivo f"
        " WHERE NOT EXISTS (SELECT 1 FROM pg_largeobject_metadata m WHERE m.oid = f.oi_conteudo)",
    ):
        assert _rows(filled, SOURCE, query)[0][0] > 0, query


def test_audit_triggers_write(filled: Server) -> None:
    with filled.connect(_name(SOURCE), autocommit=False) as conn:
        count = "SELECT count(*), max(co_seq_tacidadao) FROM ta_cidadao"
        before, top = conn.execute(count).fetchone() or (0, 0)
        conn.execute("UPDATE tb_cidadao SET st_ativo = 0 WHERE co_seq_cidadao <= 2")
        after, new_top = conn.execute(count).fetchone() or (0, 0)
        conn.rollback()
    assert after == before + 2
    assert new_top > top


def test_dumps_are_made_as_pec_makes_them(server: Server, tmp_path: Path) -> None:
    said: list[str] = []
    paths = make_samples(server, tmp_path / "samples", scale=0.4, seed=7, sources=1, on_progress=said.append)
    assert [p.name for p in paths] == ["central.backup", "ubs-a.backup"]
    assert said
    for path in paths:
        assert path.read_bytes()[:5] == b"PGDMP"
        listing = server.tool("pg_restore", "--list", str(path)).run().stdout.decode()
        entries = [line for line in listing.splitlines() if line and not line.startswith(";")]
        assert sum(" TABLE DATA " in e for e in entries) == 1106
        assert sum(" SEQUENCE SET " in e for e in entries) == 582
        assert sum(" FK CONSTRAINT " in e for e in entries) == 1307
        assert sum(" MATERIALIZED VIEW DATA " in e for e in entries) == 6
        assert any(" BLOB" in e for e in entries)
        assert not any(" ACL " in e or " sample " in e for e in entries)
    assert not any(server.has_database(name) for name in ("sample_template", "sample_0", "sample_1"))


def test_make_samples_leaves_nothing_behind_when_it_fails(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("in the way")
    with pytest.raises(FileExistsError):
        make_samples(server, folder, scale=0.4)
    assert not server.has_database("sample_template")
