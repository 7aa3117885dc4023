"""`cas export`, `cas import`, `cas grep` and `cas ls -R --long` on the command line."""

from __future__ import annotations

import gzip
import io
import tarfile

from tests.cli.support import Shell


def test_an_export_goes_to_a_file_or_to_standard_output(stocked: Shell) -> None:
    """The same bytes both ways; the name of the file chooses the form; -q says nothing."""
    done = stocked("export", "main")
    stocked("export", "main", "-o", "out.tar")
    assert (stocked.folder / "out.tar").read_bytes() == done.out
    stocked("export", "main:docs", "-o", "out.zip")
    assert (stocked.folder / "out.zip").read_bytes()[:2] == b"PK"
    assert stocked("export", "main:docs", "--zip").out[:2] == b"PK"
    stocked("export", "main", "--json", expect=2)
    stocked("export", "nowhere", "-o", "never.tar", expect=3)
    assert not (stocked.folder / "never.tar").exists()


def test_an_import_of_an_export_is_the_same_tree(stocked: Shell) -> None:
    """From a file or standard input, plain or compressed, the tree is the one that went out."""
    data = stocked("export", "main").out
    tree = stocked("show", "main", "--json").document["tree"]
    stocked.write("a.tar", gzip.compress(data))
    document = stocked("import", "--tar", "a.tar", "-b", "copy", "-m", "in", "--json").document
    assert (document["tree"], document["files"], document["links"]) == (tree, 3, 1)
    done = stocked("import", "--tar", "-", "-b", "other", "--author", "ada", stdin=data)
    newest = stocked("log", "other", "--json").document["commits"][0]
    assert (newest["commit"], newest["author"]) == (done.text.strip(), "ada")
    assert newest["tree"] == tree


def test_a_bad_archive_is_a_problem_and_no_commit(stocked: Shell) -> None:
    """An archive with an escape ends with code 2, names the member, and changes nothing."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("good"))
        archive.addfile(tarfile.TarInfo("../bad"))
    before = stocked("journal", "--json").out
    problem = stocked("import", "--tar", "-", "--json", stdin=out.getvalue(), expect=2).problem
    assert (problem["code"], problem["fields"]["path"]) == ("unsafe-path", "../bad")
    stocked("import", "--tar", "missing", expect=3)
    stocked("import", expect=2)
    assert stocked("journal", "--json").out == before


def test_grep_prints_what_scripts_know(stocked: Shell) -> None:
    """PATH:LINE, with -n the number, with -l and -z names; 1 when nothing matches."""
    assert stocked("grep", "^sec", "main").lines == ["docs/guide.md:second"]
    assert stocked("grep", "-n", "-i", "SECOND", "main").lines == ["docs/guide.md:3:second"]
    assert stocked("grep", "-l", "-z", ".", "main", "-g", "*.md").out == b"docs/guide.md\0"
    assert stocked("grep", "\\x00", "main").lines == ["new.bin: binary file matches"]
    assert stocked("grep", "nothing", "main", expect=1).out == b""
    stocked("grep", "(", "main", expect=2)
    stocked("grep", "a", "main", "-z", expect=2)
    row = stocked("grep", "second", "main", "--json").document["matches"][0]
    assert (row["path"], row["lines"]) == ("docs/guide.md", [{"number": 3, "text": "second"}])
    stocked("write", "main:escape", stdin=b"\x1b[31mred\tx\n")
    assert stocked("grep", "red", "main").lines == ["escape:\\x1b[31mred\tx"]


def test_a_long_recursive_listing_stands_in_columns(stocked: Shell) -> None:
    """`cas ls -R --long` gives kind, size, id and path of each file, line by line."""
    lines = stocked("ls", "-R", "--long", "main").lines
    assert [line.split()[0] for line in lines] == ["file", "link", "file", "executable"]
    assert [line.split()[-1] for line in lines] == ["docs/guide.md", "link", "new.bin", "run.sh"]
    assert len({line.index(line.split()[2]) for line in lines}) == 1
