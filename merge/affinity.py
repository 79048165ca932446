"""Whether the name of a column says that it points to a key.

Names share a meaning if the words of one are those of the other: a word may lack vowels (`grpo`, `hstrco`) or its end
(`atend`, `recebimnt`), two may be written as one, and a name may say more than the key's (`nu_prontuario_origem`). What
is a word without meaning (`tb`, `co`, `seq`, `id`) is learned from the names themselves: nothing here is of one
application.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Name = tuple[str, ...]
"""The words of a name."""
Match = tuple["Affinity", int]
"""What a name says of another, and how close they are: of two keys, the one with the greater is meant."""

_COMMON = 0.08
"""A first word of so many names is a prefix, and a word of so many keys says nothing."""
_VOWELS = frozenset("aeiou")
_SHORTEST_CUT = 3


class Affinity(IntEnum):
    """How much the name of a column says of a key, the strongest last."""

    NONE = 0
    PART = 1
    """All its words are of the key's name, which has more."""
    WHOLE = 2
    """It has all the words of the key's name, and more."""
    SAME = 3
    """It has the words of the key's name and no other, or is the name of a column that refers to it elsewhere."""


class Names:
    """The names of keys, to which those of columns are compared.

    :param tables: the names of all tables.
    :param keys: every key as (table, column), with the names of all columns that refer to it.
    """

    def __init__(self, tables: Iterable[str], keys: Mapping[tuple[str, str], Iterable[str]]) -> None:
        self._prefixes = _frequent(name.lower().split("_")[:1] for name in tables)
        self._silent = _frequent(column.lower().split("_") for _, column in keys)
        self._keys: list[tuple[str, str]] = []
        self._names: list[list[Name]] = []
        self._same: dict[str, set[int]] = defaultdict(set)
        self._having: dict[str, set[int]] = defaultdict(set)
        self._initial: dict[str, set[str]] = defaultdict(set)
        self._found: dict[str, dict[tuple[str, str], Match]] = {}
        for key, columns in keys.items():
            self.add(key, columns, [self.of_table(key[0]), self.of_column(key[1])])

    def add(self, key: tuple[str, str], columns: Iterable[str], names: Iterable[Name]) -> None:
        """Add a key with names of its own, and those of the columns that refer to it."""
        self._keys.append(key)
        self._names.append([])
        for name in names:
            self._add_name(len(self._keys) - 1, name)
        for column in columns:
            self.learn(key, column)

    def learn(self, key: tuple[str, str], column: str) -> None:
        """Remember that a column of this name refers to a key."""
        number = self._keys.index(key)
        self._same[column].add(number)
        self._add_name(number, self.of_column(column))

    def _add_name(self, number: int, name: Name) -> None:
        if name not in self._names[number]:
            self._names[number].append(name)
            for word in name:
                self._having[word].add(number)
                self._initial[word[:1]].add(word)
            self._found.clear()

    def of_table(self, table: str) -> Name:
        """The words of a table's name."""
        first, *rest = table.lower().split("_")
        return tuple(rest) if rest and first in self._prefixes else (first, *rest)

    def of_column(self, column: str) -> Name:
        """The words of a column's name, but for those that most keys have."""
        words = column.lower().split("_")
        return tuple(w for w in words if w not in self._silent) or (words[-1],)

    def matches(self, column: str) -> Mapping[tuple[str, str], Match]:
        """What the name of a column says of each key that it says anything of."""
        if column not in self._found:
            words = self.of_column(column)
            near = {
                w for mine in words for w in self._initial.get(mine[:1], ()) if _alike(mine, w) or mine.startswith(w)
            }
            found = {
                self._keys[n]: max(self.compare(column, name) for name in self._names[n])
                for n in {n for word in near for n in self._having[word]}
            }
            found |= {self._keys[n]: (Affinity.SAME, len(column)) for n in self._same.get(column, ())}
            self._found[column] = {key: match for key, match in found.items() if match[0]}
        return self._found[column]

    def compare(self, column: str, name: Name) -> Match:
        """What the name of a column says of a key of this name.

        A first word of two letters may, but need not mean anything: `nu` says nothing, `tp` may say `tipo`.
        """
        words = self.of_column(column)
        prefixed = len(words) > 1 and len(words[0]) <= 2 and column.lower().startswith(words[0])
        affinity = _compare(words, name, prefixed)
        if len(name) > 1 and any(len(word) > len(name[0]) and word.startswith(name[0]) for word in words):
            affinity = max(affinity, _compare(words, ("".join(name),), prefixed))  # written as one
        length = sum(map(len, name))
        # Of the keys that a name says all of, the longest name is meant; of those that it says a part of, the shortest.
        return affinity, -length if affinity is Affinity.PART else length

    def share_a_word(self, column: str, table: str) -> bool:
        """True if a column and a table have a word in common."""
        return any(_alike(one, other) for one in self.of_column(column) for other in self.of_table(table))


def _frequent(names: Iterable[Sequence[str]]) -> set[str]:
    names = list(names)
    counts = Counter(word for words in names for word in set(words))
    return {word for word, count in counts.items() if count > _COMMON * len(names)}


def _compare(words: Name, key: Name, prefixed: bool) -> Affinity:
    free = list(range(len(words)))
    missing = 0
    for word in key:
        found = next((i for i in free if _alike(words[i], word)), None)
        if found is None:
            missing += 1
        else:
            free.remove(found)
    more = [i for i in free if not (prefixed and i == 0)]
    if len(free) == len(words) or (prefixed and free == list(range(1, len(words)))):
        return Affinity.NONE  # no word is shared, or only the prefix
    if not missing:
        return Affinity.WHOLE if more else Affinity.SAME
    shared = sum(len(words[i]) for i in range(len(words)) if i not in free)
    return Affinity.PART if not more and 2 * shared >= sum(map(len, key)) else Affinity.NONE


@lru_cache(maxsize=500_000)
def _alike(one: str, other: str) -> bool:
    """True if one word is the other, or the other without vowels or without its end."""
    if one == other:
        return True
    short, long = sorted((one, other), key=len)
    if short[:1] != long[:1] or len(short) < 2 or 3 * len(short) < len(long):
        return False
    if len(short) >= _SHORTEST_CUT and long.startswith(short):
        return 2 * len(short) >= len(long) or len(short) > _SHORTEST_CUT
    bare, full = _skeleton(short), _skeleton(long)
    if not _is_within(short, long):
        return False
    return bare == full or (len(bare) > _SHORTEST_CUT and full.startswith(bare))


def _is_within(short: str, long: str) -> bool:
    """True if the letters of one are in the other, in their order."""
    rest = iter(long)
    return all(letter in rest for letter in short)


def _skeleton(word: str) -> str:
    return word[:1] + "".join(letter for letter in word[1:] if letter not in _VOWELS)
