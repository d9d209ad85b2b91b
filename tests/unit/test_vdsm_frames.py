"""Frames survive any cutting of the stream; what is no frame is refused within bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_pg.clock import boottime
from engine_pg.errors import EngineError
from engine_pg.hosts.vdsm.frames import HEARTBEAT, MAX_HEAD_BYTES, Frame, Parser, encode


def parsed(*pieces: bytes, parser: Parser | None = None) -> list[Frame]:
    parser = parser or Parser()
    frames = []
    for piece in pieces:
        parser.feed(piece)
        while (frame := parser.next_frame()) is not None:
            frames.append(frame)
    return frames


def without_length(frame: Frame) -> Frame:
    headers = {name: value for name, value in frame.headers.items() if name != "content-length"}
    return Frame(frame.command, headers, frame.body)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
frames = st.builds(
    Frame,
    st.sampled_from(["SEND", "MESSAGE", "ERROR"]),
    st.dictionaries(texts.map(lambda name: f"x-{name}"), texts, max_size=4),
    st.binary(max_size=100),
)


@given(st.lists(frames, max_size=4), st.integers(min_value=1, max_value=40))
def test_what_is_encoded_comes_back_however_it_is_cut(sent, size):
    stream = HEARTBEAT.join(encode(frame) for frame in sent)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert [without_length(frame) for frame in parsed(*pieces)] == sent


def test_heartbeats_between_frames_are_no_frames():
    assert parsed(b"\n\n\r\n", b"CONNECTED\nversion:1.2\n\n\0\n\n") == [
        Frame("CONNECTED", {"version": "1.2"})
    ]


def test_line_ends_may_be_those_of_windows():
    assert parsed(b"MESSAGE\r\na:1\r\nb:2\r\n\r\nhello\0") == [
        Frame("MESSAGE", {"a": "1", "b": "2"}, b"hello")
    ]


def test_a_body_with_a_length_may_contain_zero_bytes():
    assert parsed(b"MESSAGE\ncontent-length:3\n\n\0a\0\0")[0].body == b"\0a\0"


def test_a_repeated_header_counts_once():
    assert parsed(b"MESSAGE\na:first\na:second\n\n\0")[0].headers == {"a": "first"}


def test_a_line_end_in_a_header_cannot_forge_another_header():
    stream = encode(Frame("SEND", {"ovirtCorrelationId": "x\ndestination:elsewhere"}))
    assert parsed(stream)[0].headers == {"ovirtCorrelationId": "x\ndestination:elsewhere"}


@pytest.mark.parametrize(
    "stream",
    [
        b"MESSAGE\nno colon\n\n\0",
        b"MESSAGE\ncontent-length:-1\n\n\0",
        b"MESSAGE\ncontent-length:many\n\n\0",
        b"MESSAGE\ncontent-length:" + b"9" * 5000 + b"\n\n\0",
        b"MESSAGE\ncontent-length:1000000\n\n",
        b"MESSAGE\ncontent-length:2\n\nabc\0",
        b"MESSAGE\n\n" + b"x" * 2000,
        b"M" * (MAX_HEAD_BYTES + 1),
        b"\xff\xfe\n\n\0",
    ],
)
def test_what_is_no_frame_is_refused(stream):
    with pytest.raises(EngineError):
        parsed(stream, parser=Parser(max_body_bytes=1000))


@pytest.mark.parametrize("head", [b"MESSAGE\n\n", b"MESSAGE\ncontent-length:4000000\n\n"])
def test_a_large_body_in_small_pieces_takes_linear_time(head):
    pieces = [head, *[b"x" * 20] * 200_000, b"\0"]
    began = boottime()
    assert len(parsed(*pieces)[0].body) == 4_000_000
    assert boottime() - began < 3.0  # looking at every byte again for each piece takes far longer


def test_many_frames_in_one_piece_take_linear_time():
    piece = encode(Frame("MESSAGE", {"a": "b"}, b"x" * 100)) * 20_000
    began = boottime()
    assert len(parsed(piece)) == 20_000
    assert boottime() - began < 2.0
