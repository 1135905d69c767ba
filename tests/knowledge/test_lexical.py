"""BM25 finds by words, forgets versions that passed, and holds no more than it may."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial

from intern.knowledge.lexical import LexicalCache, LexicalIndex, words


def found(index: LexicalIndex, text: str, limit: int = 10) -> list[str]:
    return [id for id, _ in index.search(text, limit)]


def test_words_are_lower_case_singular_and_mean_something() -> None:
    assert words("The policies and the CLASSES of Staff's buses, the café's menu") == [
        *("policy", "classe", "staff", "buse", "café", "menu")
    ]
    assert words("Überstunden über 30 Tage") == ["überstunden", "über", "30", "tage"]
    assert words("is it of the") == []


def test_singular_and_plural_find_each_other() -> None:
    index = LexicalIndex([("a", "Holidays are approved by managers."), ("b", "Invoices are paid.")])
    assert found(index, "holiday manager") == ["a"]
    assert found(index, "which invoice") == ["b"]


def test_rare_words_weigh_more_than_common_ones() -> None:
    passages = [(f"p{n}", "leave policy of the company") for n in range(20)]
    index = LexicalIndex([*passages, ("rare", "sabbatical policy of the company")])
    assert found(index, "policy of sabbatical")[0] == "rare"


def test_only_passages_that_share_a_word_are_found_best_first_and_ties_in_order_of_id() -> None:
    index = LexicalIndex([("c", "red green"), ("a", "red green"), ("b", "red green"), ("x", "blue"), ("d", "red red")])
    hits = index.search("red", 10)
    assert {id for id, _ in hits} == {"a", "b", "c", "d"}
    assert [score for _, score in hits] == sorted((score for _, score in hits), reverse=True)
    assert found(index, "green", 2) == ["a", "b"]


def test_nothing_to_search_in_or_for_is_empty() -> None:
    assert found(LexicalIndex([]), "red") == []
    assert found(LexicalIndex([("a", ""), ("b", "the of")]), "red") == []
    assert found(LexicalIndex([("a", "red"), ("b", "")]), "blue") == []
    assert found(LexicalIndex([("a", "red"), ("b", "")]), "red") == ["a"]


def test_an_index_is_loaded_once_a_version() -> None:
    cache = LexicalCache()
    loads: list[int] = []

    def load(version: int) -> list[tuple[str, str]]:
        loads.append(version)
        return [("a", f"word{version}")]

    for version in (1, 1, 2, 2):
        index = cache.get(("t", "s"), version, partial(load, version))
        assert found(index, f"word{version}") == ["a"]
    assert loads == [1, 2]


def test_the_least_recently_used_skill_goes_first_and_the_newest_stays_however_large() -> None:
    cache = LexicalCache(passages=5)
    two = [("a", "red"), ("b", "blue")]
    for skill in ("one", "two"):
        cache.get(("t", skill), 1, lambda: two)
    cache.get(("t", "one"), 1, lambda: two)
    cache.get(("t", "three"), 1, lambda: two)
    assert [("t", skill) in cache for skill in ("one", "two", "three")] == [True, False, True]
    cache.get(("t", "huge"), 1, lambda: [(str(n), "red") for n in range(50)])
    assert [("t", skill) in cache for skill in ("one", "three", "huge")] == [False, False, True]


def test_neither_the_index_nor_bm25_is_imported_before_it_is_needed() -> None:
    heavy = "{'chromadb', 'bm25s', 'numba', 'torch'}"
    script = f"import sys, intern.knowledge; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_while_one_loads_the_newest_others_answer_from_the_one_before() -> None:
    cache = LexicalCache()
    cache.get(("t", "s"), 1, lambda: [("a", "old")])
    loading, go_on = threading.Event(), threading.Event()

    def load() -> list[tuple[str, str]]:
        loading.set()
        assert go_on.wait(10)
        return [("a", "new")]

    newest: list[LexicalIndex] = []
    thread = threading.Thread(target=lambda: newest.append(cache.get(("t", "s"), 3, load)))
    thread.start()
    assert loading.wait(10)
    assert found(cache.get(("t", "s"), 2, list), "old") == ["a"]
    go_on.set()
    thread.join()
    assert found(newest[0], "new") == ["a"]
    assert cache.get(("t", "s"), 2, list) is newest[0], "a newer one is never replaced by an older one"
