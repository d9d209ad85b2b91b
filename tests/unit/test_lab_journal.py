"""Journals of the lab are read while they are written."""

from __future__ import annotations

from lab.journal import Journal, Journals


def test_what_was_noted_is_read_once_and_a_line_that_is_being_written_later(tmp_path):
    journals = Journals(tmp_path)
    assert journals.noted("somebody", "worked") == []
    journal = Journal(journals.path("somebody"))
    journal.note("worked", token=1)
    journal.note("ended")
    journal._stream.close()
    assert [entry["token"] for entry in journals.noted("somebody", "worked")] == [1]
    with journals.path("somebody").open("a") as stream:
        stream.write('{"at": 1e9, "what": "worked", ')
        stream.flush()
        assert len(journals.noted("somebody", "worked")) == 1
        stream.write('"token": 2}\n')
    found = journals.noted("somebody", "worked", since=1e9)
    assert [entry["token"] for entry in found] == [2]
    assert len(journals.noted("somebody", "worked")) == 2
    assert len(journals.noted("somebody", "ended")) == 1
