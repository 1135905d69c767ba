"""`intern examples import`: a person or a mapping agrees to what was guessed, and every bad row is named."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli.owning import Outcome, Owner, make_home, owning
from cli.test_terminal import start

from intern.cli import run
from intern.cli.examples import read_examples
from intern.errors import InvalidInput
from intern.learning.imports.mapping import load_mapping

SCHEMA = {
    "type": "object",
    "properties": {"kind": {"type": "string", "enum": ["paid", "unpaid"]}},
    "required": ["kind"],
    "additionalProperties": False,
}
CSV = "mail;Kind\na day in june;paid\na week off;Unpaid\n"

Intern = Callable[..., Outcome]


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    """Writes a file and gives its path."""

    def write(content: str | bytes, name: str = "rows.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


def kept(intern: Intern) -> int:
    return int(next(s for s in intern("skills", "list").json["data"] if s["name"] == "leave")["examples"])


# --- the project's own layout ----------------------------------------------------------------------------------


def test_json_lines_keep_their_line_numbers() -> None:
    rows = read_examples(
        '\n{"input": "a", "output": "b"}\n\n{"input": "c", "output": "d", "group": "g"}\n', None, as_csv=False
    )
    assert rows == [(2, {"input": "a", "output": "b"}), (4, {"input": "c", "output": "d", "group": "g"})]


@pytest.mark.parametrize(
    ("text", "schema", "problem"),
    [
        ('{"input": "a", "output": "b"}\nnonsense', None, "line 2: not valid JSON"),
        ('{"input": "a", "output": "b"}\n[1]', None, "line 2: must be an object"),
        ('{"input": "a"}', None, "line 1: key 'output' is missing"),
        ('{"input": "a", "output": "b", "label": "c"}', None, "line 1: key 'label' is unknown"),
        ('{"input": "a", "output": {"kind": "sick"}}', SCHEMA, "line 1: key 'output' breaks the schema"),
        ('{"input": "a", "output": {"kind": "paid"}}', None, "line 1: key 'output' must be a text"),
        ("", None, "There are no rows"),
    ],
)
def test_a_bad_row_is_named_by_its_line(text: str, schema: dict[str, Any] | None, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_examples(text, schema, as_csv=False)
    assert caught.value.message.startswith(problem)


def test_how_many_rows_are_bad_is_said() -> None:
    with pytest.raises(InvalidInput, match=r"line 1: .*\(2 of 3 rows are bad\)\. Nothing was added\."):
        read_examples('{}\n{"input": "a", "output": "b"}\n{}', None, as_csv=False)


def test_csv_cells_are_text_or_json_as_the_skill_wants() -> None:
    text = 'input,output,group\r\n"two\r\nlines",yes,\r\nsecond,no,g\r\n'
    assert read_examples(text, None, as_csv=True) == [
        (2, {"input": "two\r\nlines", "output": "yes"}),
        (4, {"input": "second", "output": "no", "group": "g"}),
    ]
    structured = 'output,input\n"{""kind"": ""paid""}",a\n'
    assert read_examples(structured, SCHEMA, as_csv=True) == [(2, {"output": {"kind": "paid"}, "input": "a"})]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("question,answer\na,b\n", "The CSV has no column 'input'"),
        ("input,output,score\na,b,1\n", "The CSV has an unknown column 'score'"),
        ("input,output\na\n", "line 2: must have 2 cells"),
        ("input,output\na,b,c\n", "line 2: must have 2 cells"),
        ("input,output\na,paid\n", "line 2: key 'output' must be JSON"),
        ('input,output\na,"b', "line 2: not valid CSV"),
    ],
)
def test_a_bad_csv_is_explained(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_examples(text, SCHEMA, as_csv=True)
    assert caught.value.message.startswith(problem)


def test_the_own_layout_is_taken_without_a_question(intern: Intern, file: Callable[..., str]) -> None:
    rows = 'input,output,split\na day,"{""kind"": ""paid""}",heldout\na week,"{""kind"": ""unpaid""}",\n'
    assert intern("examples", "import", "leave", file(rows)).json == {"skill": "leave", "added": 2}
    again = intern("examples", "import", "leave", file(rows))
    assert again.json == {"skill": "leave", "added": 0, "same": 2}


# --- any other layout ------------------------------------------------------------------------------------------


def test_a_guess_needs_a_yes_where_nobody_can_be_asked(intern: Intern, file: Callable[..., str]) -> None:
    path = file(CSV)
    before = kept(intern)
    refused = intern("examples", "import", "leave", path)
    assert (refused.code, refused.out) == (1, "")
    assert "kind: Kind" in refused.err, "the guess is shown"
    assert 'line 3, output: {"kind": "unpaid"}' in refused.err, "and two rows as they would become"
    reason = refused.err.splitlines()[-1]
    assert reason.startswith("intern: The file is not in the project's own layout")
    assert "--yes" in reason
    assert "--mapping FILE" in reason
    assert kept(intern) == before
    taken = intern("examples", "import", "leave", path, "--yes").json
    assert (taken["added"], taken["mapping"]["output"]) == (2, {"kind": "Kind"})
    assert kept(intern) == before + 2


def test_a_mapping_is_printed_saved_and_given_back(intern: Intern, file: Callable[..., str]) -> None:
    path = file(CSV)
    before = kept(intern)
    shown = intern("examples", "import", "leave", path, "--show-mapping")
    assert (shown.code, kept(intern)) == (0, before)
    mapping = load_mapping(shown.out)
    assert (mapping.input, mapping.fields) == (("mail",), {"kind": "Kind"})
    assert intern("examples", "import", "leave", path, "--show-mapping", "--json").json["input"] == "mail"
    saved = file(shown.out, "map.yaml")
    assert intern("examples", "import", "leave", path, "--mapping", saved).json["added"] == 2
    broken = file("input: mail\noutput: {kind: Kind}\nnulls: sometimes", "map.yaml")
    refused = intern("examples", "import", "leave", path, "--mapping", broken)
    assert refused.err.startswith("intern: The mapping: key 'nulls'")


def test_columns_can_be_named_on_the_command_line(intern: Intern, file: Callable[..., str]) -> None:
    path = file("a,b,c,d\nx,y,z,paid\n")
    unclear = intern("examples", "import", "rules", path)
    assert unclear.code == 1
    assert "'a', 'b', 'c', 'd'" in unclear.err
    assert "--input COLUMN and --output COLUMN" in unclear.err
    done = intern("examples", "import", "rules", path, "--input", "c", "--output", "b", "--nulls", "drop")
    assert done.json["mapping"] == {"layout": "columns", "input": "c", "output": "b", "nulls": "drop"}
    fields = intern("examples", "import", "leave", path, "--input", "a", "--input", "b", "--output", "kind=d")
    assert fields.json["mapping"]["output"] == {"kind": "d"}
    half = intern("examples", "import", "leave", path, "--input", "a")
    assert half.code == 1, "half a declaration is still half a guess"
    assert intern("examples", "import", "leave", path, "--output", "a", "--output", "kind=b").code == 2
    given = ("--output", "kind=d", "--input", "a", "--show-mapping")
    assert load_mapping(intern("examples", "import", "leave", path, *given).out).input == ("a",)


def test_bad_rows_are_named_or_skipped_and_listed(intern: Intern, file: Callable[..., str]) -> None:
    path = file(CSV + "no idea;sick\nshort\n")
    before = kept(intern)
    refused = intern("examples", "import", "leave", path, "--yes")
    assert (refused.code, kept(intern)) == (1, before)
    assert refused.err.splitlines()[-1] == (
        "intern: line 4, column 'Kind': 'sick' is none of paid, unpaid (field 'kind') (2 of 4 rows are bad). "
        "Nothing was added."
    )
    done = intern("examples", "import", "leave", path, "--yes", "--skip-bad").json
    assert (done["added"], done["skipped"]) == (2, 2)
    assert [(bad["line"], bad["column"]) for bad in done["problems"]] == [(4, "Kind"), (5, None)]
    only_bad = file("mail;Kind\nx;sick\ny;ill\n")
    assert intern("examples", "import", "leave", only_bad, "--yes", "--skip-bad").code == 1


def test_another_encoding_is_read_and_told(intern: Intern, file: Callable[..., str]) -> None:
    text = "mail;Kind\nUrlaub für Jürgen, ab März;paid\nÜbermorgen früh können wir später;unpaid\n"
    refused = intern("examples", "import", "leave", file(text.encode("cp1252")))
    assert "windows-1252" in refused.err
    assert "Urlaub für Jürgen" in refused.err
    mixed = file(text.encode() + "für;paid\n".encode("cp1252"))
    assert intern("examples", "import", "leave", mixed, "--yes").err.startswith("intern: line 4: ")


def test_a_file_over_the_limit_is_refused_before_it_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    big = tmp_path / "big.jsonl"
    with big.open("wb") as out:
        out.truncate(50_000_000)
    with owning(make_home(tmp_path / "home")) as owner:
        assert run(["examples", "import", "leave", str(big), "--home", str(owner.home)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"intern: {big}: larger than the 20 MB that are taken at once.")
    assert "INTERN_UPLOAD_BYTES" in said


@pytest.mark.parametrize(("answer", "added"), [("y", 2), ("n", 0)])
def test_a_person_is_shown_the_guess_and_asked(
    owner: Owner, intern: Intern, file: Callable[..., str], answer: str, added: int
) -> None:
    before = kept(intern)
    ours, theirs = pty.openpty()
    process = start(owner, "examples", "import", "leave", file(CSV), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 4096):
            said += piece
            if said.rstrip().endswith(b"[y/N]:"):
                os.write(ours, f"{answer}\n".encode())
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    assert process.wait(30) == (0 if added else 1)
    assert "kind: Kind" in said.decode()
    assert "line 2, input: a day in june" in said.decode()
    assert "Add 2 examples like these to leave? [y/N]:" in said.decode()
    assert kept(intern) == before + added


def test_conversations_come_from_standard_input(owner: Owner) -> None:
    chat = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "unpaid"}]}
    process = start(owner, "examples", "import", "leave", "-", "--yes", stdin=-1, stdout=-1)
    out, _ = process.communicate(json.dumps(chat).encode())
    assert json.loads(out)["mapping"] == {
        **{"layout": "openai", "messages": "messages", "output": {"kind": "messages"}, "nulls": "keep"}
    }
