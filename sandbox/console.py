"""What the user sees in the terminal: progress, errors and the summary of a run."""

from __future__ import annotations

import io
import json
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from merge.language import text
from sandbox import words
from sandbox.result import DISPOSITIONS
from sandbox.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.progress import TaskID

    from merge.errors import HomologationError
    from sandbox.profiling import Profiled
    from sandbox.result import PreflightResult, RunResult
    from sandbox.runs import Run

_SHOWN = 20
_SECONDS_BETWEEN_LINES = 5.0
_STYLES = {"good": "bold green", "bad": "bold red", "wait": "bold yellow"}
_STATES = {"blocked": "bold red", "warned": "yellow", "passed": "green", "confirmed": "green"}


class Reporter:
    """Tells what is going on: bars on a terminal, now and then a line elsewhere; all on standard error if `as_json`."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = _console(stderr=as_json)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._title = ""
        self._began = self._said = 0.0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show a step while it is under way, and how long it took at its end."""
        self._title = title
        self._began = self._said = time.monotonic()
        mark = Text("✗ ", "red")
        try:
            if self.console.is_terminal:
                with self._bar(title):
                    yield
            else:
                yield
            mark = Text("✓ ", "green")
        finally:
            took = words.duration(time.monotonic() - self._began)
            self.console.print(Text.assemble(mark, title, (f" ({took})", "dim")))

    @contextmanager
    def _bar(self, title: str) -> Iterator[None]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            self._progress, self._task = progress, progress.add_task(title, total=None)
            try:
                yield
            finally:
                self._progress = None

    def progress(self, done: int, total: int) -> None:
        """Tell how far the step is, in whatever unit; safe for threads."""
        now = time.monotonic()
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total or None)
        elif total and now - self._said > _SECONDS_BETWEEN_LINES:
            self._said = now
            told = done * 20 >= total  # from less, an estimate is a guess
            left = (now - self._began) * (total - done) / done if told else None
            estimate = "" if left is None else text(pt="; faltam ", en="; left ") + words.duration(left)
            self._say(f"  {self._title}: {100 * done // total} %{estimate}", "dim")

    def note(self, message: str) -> None:
        """Say something that the user should know."""
        self._say(f"  {message}", "dim")

    def warn(self, message: str) -> None:
        """Say something that the user should not overlook."""
        self._say(f"! {message}", "yellow")

    def ask(self, question: str, prompt: str) -> str:
        """Ask the user something, and return what was said; "" where there is nobody to ask."""
        if self.as_json or not (sys.stdin.isatty() and self.console.is_terminal):
            return ""
        self._say(question)
        return self.console.input(f"  {prompt}: ", markup=False).strip()

    def agrees(self, question: str) -> bool:
        """Ask the user for consent; where there is nobody to ask, there is none."""
        return self.ask(question, text(pt="[s/N]", en="[y/N]"))[:1].lower() in ("s", "y")

    def error(self, error: HomologationError) -> None:
        """Show an error that ended a run."""
        show_error(error)

    def summary(self, result: RunResult, report: str, folder: str) -> None:
        """Show what came of a run; in JSON mode, print result.json and nothing else on standard output."""
        if self.as_json:
            self.print_json(result.to_dict())
        said = verdict(result)
        self.console.print()
        if any(source.rows for source in result.sources):
            self.console.print(_sources(result))
            self.console.print()
        if result.preflight:
            self._say(text(pt="Verificações: ", en="Checks: ") + states(result.preflight), "dim")
        if result.content_proof is not None:
            for sentence in words.content(result.content_proof):
                self._say(sentence, "dim")
            for name, rows in result.content_proof.alike.items():
                self._say(f"  {name}: {words.number(rows)}", "dim")
        self._say(f"{result.status} · {said.headline}", _STYLES[said.tone])
        if result.problem is None:  # which the user has seen already
            for sentence in said.sentences:
                self._say(f"  {sentence}")
            for step in said.next_steps:
                self._say(f"→ {step}")
        self._say(text(pt="Relatório: ", en="Report: ") + report)
        self._say(text(pt="Resultado: ", en="Result: ") + f"{folder}/result.json")

    def preflight(self, answers: Sequence[PreflightResult], folder: str) -> None:
        """Show every answer of a preflight, what is wrong first; as JSON all there is about them."""
        if self.as_json:
            self.print_json([asdict(answer) for answer in answers])
        table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
        for header in (
            text(pt="código", en="id"),
            text(pt="onde", en="where"),
            text(pt="verificação", en="check"),
            text(pt="achados", en="found"),
            text(pt="situação", en="state"),
        ):
            table.add_column(header, overflow="fold")
        for answer in sorted(answers, key=lambda a: words.STATES.index(a.state)):
            found = "" if answer.found is None else words.number(answer.found)
            state = Text(words.state(answer.state), _STATES.get(answer.state, "dim"))
            title = Text(answer.title)
            if answer.state in ("blocked", "warned"):
                title.append(f"\n{answer.meaning}\n→ {answer.action}", "dim")
            table.add_row(answer.id, words.places(answer.where), title, found, state)
        self.console.print(table)
        self._say(text(pt="Verificações: ", en="Checks: ") + states(answers))
        self._say(text(pt="Pasta: ", en="Folder: ") + folder)

    def print_json(self, content: object) -> None:
        """Print something for a program, on standard output."""
        # ASCII: a redirected standard output may be in any encoding, on Windows above all.
        print(json.dumps(content, indent=1))  # noqa: T201

    def status(self, runs: Sequence[Run]) -> None:
        """List runs: what each has done, and what came of it."""
        if self.as_json:
            self.print_json([run.load("run") for run in runs])
            return
        table = Table(box=None, header_style="bold")
        for header in text(pt="execução passos estado servidor", en="run steps state server").split():
            table.add_column(header)
        for run in runs:
            kept = run.load("run")
            state = run.load("result")["status"] if run.has("result") else text(pt="interrompida", en="interrupted")
            if run.is_busy:
                state = text(pt="em curso", en="under way")
            server = "—" if kept.get("destroyed") else str((kept.get("server") or {}).get("provider", "—"))
            table.add_row(run.id, str(len(kept["done"])), state, server)
        self.console.print(table)

    def profiled(self, found: Profiled) -> None:
        """Show what a profile makes of every table, then what it says nothing of."""
        if self.as_json:
            self.print_json(asdict(found))
            return
        if found.tables:
            self.console.print(_tables(found))
            self.console.print()
        left = [
            (text(pt="tabelas sem papel", en="tables without a role"), [t.name for t in found.without_role]),
            (text(pt="referências não declaradas", en="undeclared references"), found.undeclared),
            *(
                (text(pt=f"{name}: colunas suspeitas", en=f"{name}: suspect columns"), columns)
                for name, columns in found.suspicions.items()
            ),
        ]
        for title, names in left:
            self._say(f"{title}: {words.number(len(names))}", _STYLES["wait" if names else "good"])
            for name in names:
                self._say(f"  · {name}")
        if any(names for _, names in left):
            self._say(
                text(
                    pt="→ Declare-as num arquivo de ajuste: merge/profiles/override.example.toml mostra como.",
                    en="→ Declare them in an override file: merge/profiles/override.example.toml shows how.",
                ),
                "bold",
            )

    def _say(self, message: str, style: str = "") -> None:
        self.console.print(message, style=style, markup=False)


def show_error(error: HomologationError) -> None:
    """Show what happened, where the evidence is and what to do next, on standard error."""
    console = _console(stderr=True)
    console.print(f"✗ {error.what}", style="bold red", markup=False)
    for detail in error.details[:_SHOWN]:
        console.print(f"  · {detail}", markup=False)
    if len(error.details) > _SHOWN:
        more = words.number(len(error.details) - _SHOWN)
        console.print(text(pt=f"  … e mais {more}", en=f"  … and {more} more"), style="dim")
    if error.evidence:
        console.print(text(pt="  Evidência: ", en="  Evidence: ") + error.evidence, markup=False)
    if error.next_step:
        console.print("→ " + error.next_step, style="bold", markup=False)


def show_interrupted() -> None:
    """Say how to go on after an interruption."""
    _console(stderr=True).print(
        text(
            pt="Interrompido. Continue com: invoke homolog --resume EXECUÇÃO (invoke status as lista).",
            en="Interrupted. Go on with: invoke homolog --resume RUN (invoke status lists them).",
        ),
        markup=False,
    )


def states(answers: Iterable[PreflightResult]) -> str:
    """How many answers there are of each state, e.g. ``2 warnings · 41 in order``."""
    count = Counter(answer.state for answer in answers)
    return " · ".join(f"{count[name]} {words.state(name, count[name])}" for name in words.STATES if count[name])


def _tables(found: Profiled) -> Table:
    """One line for each table: its role, its rule, whether its rows come, and how many there are."""
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for header in text(pt="tabela papel regra vem", en="table role rule comes").split():
        table.add_column(header, overflow="fold")
    sources = list(found.tables[0].rows)
    for source in sources:
        table.add_column(Text(source), justify="right")
    labels = words.roles()
    for one in found.tables:
        table.add_row(
            Text(one.name),
            labels.get(one.role or "", "—"),
            Text(one.rule or "—"),
            text(pt="sim", en="yes") if one.comes else text(pt="não", en="no"),
            *(words.number(one.rows[source]) for source in sources),
        )
    return table


def _sources(result: RunResult) -> Table:
    """One line for each source; only dispositions that occur."""
    occurring = [name for name in DISPOSITIONS if any((s.dispositions or {}).get(name) for s in result.sources)]
    labels = words.labels()
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(text(pt="origem", en="source"), overflow="fold")
    headers = [
        text(pt="linhas", en="rows"),
        *(labels[name] for name in occurring),
        text(pt="diferenças", en="differences"),
        text(pt="tempo", en="time"),
    ]
    for header in headers:
        table.add_column(header, justify="right", overflow="fold")
    for source in result.sources:
        differences = source.proof.differences
        table.add_row(
            Text(source.name),
            words.number(source.rows),
            *(words.number((source.dispositions or {}).get(name, 0)) for name in occurring),
            "—" if differences is None else words.number(differences),
            words.duration(sum(source.seconds.values())),
        )
    phases: dict[str, float] = {}
    for source in result.sources:
        for phase, seconds in source.seconds.items():
            phases[phase] = phases.get(phase, 0.0) + seconds
    table.caption = " · ".join(f"{words.phase(phase)} {words.duration(s)}" for phase, s in phases.items())
    table.caption_justify = "left"
    return table


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # a sign that the stream cannot show must not end a run
    plain = not stream.isatty()
    return Console(stderr=stderr, highlight=False, soft_wrap=plain, width=120 if plain else None)
