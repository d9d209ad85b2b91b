from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_pg.simulator.frames import MAX_FRAME, MAX_HEAD, BrokenFrame, Decoder, Frame

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
headers = st.dictionaries(text.filter(lambda name: name not in ("", "content-length")), text)


def decode(data: bytes) -> list[Frame]:
    return list(Decoder().feed(data))


@given(st.lists(st.tuples(headers, st.binary(max_size=30)), max_size=4), st.integers(1, 7))
def test_frames_survive_however_the_bytes_are_cut(contents, step):
    sent = [Frame("MESSAGE", head, body) for head, body in contents]
    data = b"\n".join(frame.encode() for frame in sent)
    decoder = Decoder()
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    received = [frame for piece in pieces for frame in decoder.feed(piece)]
    assert [frame.body for frame in received] == [frame.body for frame in sent]
    plain = [
        {name: value for name, value in frame.headers.items() if name != "content-length"}
        for frame in received
    ]
    assert plain == [frame.headers for frame in sent]


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_broken(data):
    with suppress(BrokenFrame):
        assert all(isinstance(frame, Frame) for frame in decode(data))


def test_a_body_without_a_length_ends_at_the_zero():
    assert [frame.body for frame in decode(b"SEND\ndestination:a\n\nhello\0")] == [b"hello"]


def test_a_body_with_a_length_may_contain_zeros():
    (frame,) = decode(b"SEND\ncontent-length:3\n\na\0b\0")
    assert frame.body == b"a\0b"


def test_carriage_returns_and_heart_beats_are_accepted():
    frames = decode(b"\n\r\nCONNECT\r\naccept-version:1.2\r\n\r\n\0\n\nSEND\n\n\0")
    assert [frame.command for frame in frames] == ["CONNECT", "SEND"]
    assert frames[0].headers == {"accept-version": "1.2"}


def test_the_first_of_repeated_headers_counts():
    (frame,) = decode(b"SEND\na:1\na:2\n\n\0")
    assert frame.headers == {"a": "1"}


def test_headers_of_connect_are_not_unescaped():
    assert decode(b"CONNECT\na:\\c\n\n\0")[0].headers == {"a": "\\c"}
    assert decode(b"SEND\na:\\c\n\n\0")[0].headers == {"a": ":"}


@pytest.mark.parametrize(
    "data",
    [
        b"SEND\nno colon\n\n\0",
        b"SEND\na:\\t\n\n\0",
        b"SEND\na:\\\n\n\0",
        b"SEND\ncontent-length:-1\n\n\0",
        b"SEND\ncontent-length:many\n\n\0",
        b"SEND\ncontent-length:2\n\nabc\0",
        b"SEND\ncontent-length:%d\n\n" % (MAX_FRAME + 1),
        b"\xff\n\n\0",
        b"SEND\n" + b"a:b\n" * MAX_HEAD,
    ],
)
def test_what_is_no_frame_is_broken(data):
    with pytest.raises(BrokenFrame):
        decode(data)


def test_a_body_without_a_length_has_an_end_too():
    decoder = Decoder()
    assert list(decoder.feed(b"SEND\n\n")) == []
    with pytest.raises(BrokenFrame):
        list(decoder.feed(b"x" * (MAX_FRAME + 1)))
