use super::*;

fn judge(body: Option<&[u8]>) -> Judge {
    let question = Question::Get { host: "h".into(), path: "/".into(), status: 200, body: body.map(Into::into) };
    let speech = Arc::new(Speech::new(&question, false));
    Judge::new(&question, speech)
}

/// The answers that end in `text`, fed in pieces of `cut` bytes.
fn read(judge: &mut Judge, text: &[u8], cut: usize, asked: usize) -> Result<usize, Fault> {
    let mut reader = judge.open(3);
    let mut ended = 0;
    for piece in text.chunks(cut) {
        ended += judge.take(3, &mut reader, piece, asked - ended)?;
    }
    Ok(ended)
}

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &[u8] =
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nT: v\r\n\r\n";

#[test]
fn answers_end_where_they_should_however_they_are_cut() {
    let stream = [HELLO, CHUNKED, HELLO].concat();
    for cut in 1..stream.len() {
        assert_eq!(read(&mut judge(Some(b"hello")), &stream, cut, 3), Ok(3), "pieces of {cut}");
        assert_eq!(read(&mut judge(None), &stream, cut, 3), Ok(3), "pieces of {cut}");
    }
    assert_eq!(read(&mut judge(None), &stream[..stream.len() - 1], 7, 3), Ok(2));
}

#[test]
fn wrong_answers_are_named() {
    let other = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellO";
    let longer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!";
    let missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n";
    for cut in [1, 9, 1000] {
        assert_eq!(read(&mut judge(Some(b"hello")), other, cut, 1), Err(Fault::Bytes));
        assert_eq!(read(&mut judge(Some(b"hello")), longer, cut, 1), Err(Fault::Length));
        assert_eq!(read(&mut judge(None), &[HELLO, longer].concat(), cut, 2), Err(Fault::Length));
        assert_eq!(read(&mut judge(None), missing, cut, 1), Err(Fault::Status(404)));
        assert_eq!(read(&mut judge(None), chunk, cut, 1), Err(Fault::Chunk));
        assert_eq!(read(&mut judge(None), &[HELLO, HELLO].concat(), cut, 1), Err(Fault::Unasked));
    }
}

#[test]
fn a_stream_that_ends_may_end_an_answer() {
    let mut judge = judge(Some(b"hello"));
    let mut reader = judge.open(0);
    assert_eq!(judge.take(0, &mut reader, b"HTTP/1.0 200 OK\r\n\r\nhel", 1), Ok(0));
    assert_eq!(judge.end(&mut reader.clone()), Err(Fault::Length));
    assert_eq!(judge.take(0, &mut reader, b"lo", 1), Ok(0));
    assert_eq!(judge.end(&mut reader), Ok(1));
    let mut reader = judge.open(0);
    assert_eq!(judge.end(&mut reader), Ok(0), "between two answers");
    assert_eq!(judge.take(0, &mut reader, &HELLO[..HELLO.len() - 1], 1), Ok(0));
    assert_eq!(judge.end(&mut reader), Err(Fault::Length));
}

#[test]
fn echoes_are_compared_with_what_was_sent() {
    let question = Question::Echo { size: 100 };
    let speech = Arc::new(Speech::new(&question, false));
    let mut judge = Judge::new(&question, Arc::clone(&speech));
    let sent = speech.at(speech.start(9), 250).to_vec();
    let mut reader = judge.open(9);
    assert_eq!(judge.take(9, &mut reader, &sent[..120], 3), Ok(1));
    assert_eq!(judge.take(9, &mut reader, &sent[120..], 2), Ok(1));
    let mut reader = judge.open(8);
    assert_eq!(judge.take(8, &mut reader, &sent, 3), Err(Fault::Bytes), "another connection's answer");
    let mut reader = judge.open(9);
    assert_eq!(judge.take(9, &mut reader, &sent, 2), Err(Fault::Unasked));
}
