"""Tables of text for a terminal."""

from diffdask.tables import lay_out, wrap_text

ROWS = [["method", "first\nhead", "n"], ["long name", "1.0", "12"], ["b", "10.5\n9–12", "3"], ["short"]]


def test_columns_are_in_line_and_rules_as_wide_as_the_table():
    lines = lay_out(ROWS, rules=(1, len(ROWS)))
    assert lines[2] == lines[-1] == "─" * max(map(len, lines))
    ends = [
        line.rstrip().rfind(text) + len(text) for line, text in zip(lines[3:6], ("1.0", "10.5", "9–12"), strict=True)
    ]
    assert len(set(ends)) == 1
    assert len(lines) == 2 + 1 + 1 + 2 + 1 + 1


def test_every_cell_is_there_and_no_line_ends_in_blanks():
    text = "\n".join(lay_out(ROWS))
    for row in ROWS:
        for cell in row:
            assert all(part in text for part in cell.split("\n"))
    assert all(line == line.rstrip() for line in text.splitlines())


def test_text_columns_start_in_line():
    first, second = lay_out([["a", "xx", "1"], ["bb", "y", "22"]], left=(0, 1))
    assert first.index("xx") == second.index("y")


def test_sentences_are_broken_between_words():
    text = "word " * 60
    lines = wrap_text(text)
    assert len(lines) > 2
    assert " ".join(lines) == text.strip()
