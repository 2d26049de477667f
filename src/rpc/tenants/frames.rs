//! Frames of HTTP/2 that no client library sends: the header blocks are literals, written byte by byte.

use super::*;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATH: &str = "/wharfinger.v1.TrustService/WhoAmI";
/// An empty message.
const EMPTY: &[u8] = &[0; 5];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LIMIT: Duration = Duration::from_secs(60);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header block of literals without indexing.
fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            let length = text.len();
            // Seven bits of the length, and the rest of it in the next bytes.
            if length < 127 {
                block.push(u8::try_from(length).unwrap());
            } else {
                let mut rest = length - 127;
                block.push(127);
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                block.push(u8::try_from(rest).unwrap());
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The end of a call.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// A message.
    Answered,
    /// A status alone.
    Refused,
    /// A reset of its stream, or the end of the connection.
    Cut,
}

/// A connection that was greeted.
struct Wire(TcpStream);

impl Wire {
    async fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Self(stream)
    }

    /// Writes frames. `false`: the server has closed the connection, or does not read on.
    async fn send(&mut self, frames: &[u8]) -> bool {
        matches!(timeout(LIMIT / 4, self.0.write_all(frames)).await, Ok(Ok(())))
    }

    /// The next frame: kind, flags, stream, payload. `None`: the connection is closed.
    async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    async fn end(&mut self) -> End {
        let end = async {
            let mut answered = false;
            while let Some((kind, flags, stream, _)) = self.next().await {
                match kind {
                    RST_STREAM | GOAWAY => return End::Cut,
                    DATA if stream == 1 => answered = true,
                    _ => {}
                }
                if stream == 1 && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                    return if answered { End::Answered } else { End::Refused };
                }
            }
            End::Cut
        };
        timeout(LIMIT, end).await.expect("an end of the call")
    }

    /// The code with which the server ends the connection. `None`: it closes it without one.
    async fn goodbye(&mut self) -> Option<u32> {
        let goodbye = async {
            while let Some((kind, _, _, payload)) = self.next().await {
                if kind == GOAWAY {
                    return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
            }
            None
        };
        timeout(LIMIT, goodbye).await.expect("the end of the connection")
    }
}

/// A call with these headers, this body and these trailers.
async fn ask(address: SocketAddr, headers: &[(&str, &str)], body: &[u8], trailers: &[(&str, &str)]) -> End {
    let mut wire = Wire::open(address).await;
    let last = if trailers.is_empty() { END_STREAM } else { 0 };
    let mut frames = frame(HEADERS, END_HEADERS, 1, &block(headers));
    frames.extend(frame(DATA, last, 1, body));
    if !trailers.is_empty() {
        frames.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers)));
    }
    wire.send(&frames).await;
    wire.end().await
}

/// The headers of a call by a bearer.
fn usual<'a>(authority: Option<&'a str>, token: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    let mut headers = vec![(":method", "POST"), (":scheme", "http"), (":path", PATH)];
    headers.extend(authority.map(|authority| (":authority", authority)));
    headers.extend([("content-type", "application/grpc"), ("te", "trailers")]);
    headers.extend(token.map(|token| ("authorization", token)));
    headers
}

const AGENT: Who = Who::new("web", "agent", &[BuiltIn::Agent]);

/// A world with one caller, the address of its leader, and the caller's header.
async fn place() -> (World, SocketAddr, String) {
    let (world, _) = world(1, 1, &[AGENT]).await;
    let (address, token) = (world.leader.server.address, format!("Bearer {}", world.tokens[0]));
    (world, address, token)
}

#[tokio::test]
async fn n95_headers_that_http2_forbids_reach_no_method() {
    let (_world, address, token) = place().await;
    let good = usual(Some("w"), Some(&token));
    let with = |more: &[(&'static str, &'static str)]| [&good[..], more].concat();
    let mut late = good.clone();
    let path = late.remove(2);
    late.push(path);
    for (what, headers) in [
        ("two paths", [&[(":path", PATH)][..], &good[..]].concat()),
        ("a path after other headers", late),
        ("an upper-case name", with(&[("X-Request", "1")])),
        ("connection", with(&[("connection", "close")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("a line break", with(&[("x-request", "a\r\nauthorization: b")])),
        ("a NUL", with(&[("x-request", "a\0b")])),
        ("an unknown pseudo-header", [&[(":tenant", "ops")][..], &good[..]].concat()),
    ] {
        assert_ne!(ask(address, &headers, EMPTY, &[]).await, End::Answered, "{what}");
        assert_eq!(ask(address, &good, EMPTY, &[]).await, End::Answered, "after {what}");
    }
    assert_eq!(ask(address, &with(&[("x-request", "a")]), EMPTY, &[]).await, End::Answered);
}

#[tokio::test]
async fn n96_a_body_that_is_not_as_announced_is_refused() {
    let (_world, address, token) = place().await;
    let good = usual(Some("w"), Some(&token));
    let long = |length: &'static str| [&good[..], &[("content-length", length)]].concat();
    assert_eq!(ask(address, &long("5"), EMPTY, &[]).await, End::Answered);
    for (what, headers, body) in [
        ("less was announced", long("4"), EMPTY),
        ("more was announced", long("6"), EMPTY),
        ("no length", long("five"), EMPTY),
        ("a compressed message without an encoding", good.clone(), &[1, 0, 0, 0, 0][..]),
        ("half a message", good.clone(), &[0, 0, 0, 0, 9, 1][..]),
        ("a message of 4 GiB", good.clone(), &[0, 255, 255, 255, 255][..]),
        ("another flag", good.clone(), &[7, 0, 0, 0, 0][..]),
    ] {
        assert_ne!(ask(address, &headers, body, &[]).await, End::Answered, "{what}");
        assert_eq!(ask(address, &good, EMPTY, &[]).await, End::Answered, "after {what}");
    }
}

#[tokio::test]
async fn n97_credentials_count_in_the_headers_alone() {
    let (_world, address, token) = place().await;
    let (with, without) = (usual(Some("w"), Some(&token)), usual(Some("w"), None));
    assert_eq!(ask(address, &with, EMPTY, &[("x-end", "1")]).await, End::Answered);
    assert_eq!(ask(address, &without, EMPTY, &[]).await, End::Refused);
    assert_eq!(ask(address, &without, EMPTY, &[("authorization", token.as_str())]).await, End::Refused);
    assert_eq!(ask(address, &with, EMPTY, &[("authorization", "Bearer x")]).await, End::Answered);
}

#[tokio::test]
async fn n98_an_authority_makes_no_caller() {
    let (_world, address, token) = place().await;
    let leader = address.to_string();
    for authority in [Some("w"), Some(leader.as_str()), Some("another.example"), None] {
        assert_eq!(ask(address, &usual(authority, Some(&token)), EMPTY, &[]).await, End::Answered, "{authority:?}");
        assert_eq!(ask(address, &usual(authority, None), EMPTY, &[]).await, End::Refused, "{authority:?}");
    }
    assert_ne!(ask(address, &usual(Some("agent@web"), None), EMPTY, &[]).await, End::Answered);
}

/// One call by another connection.
async fn others_are_served(address: SocketAddr, token: &str) {
    assert_eq!(ask(address, &usual(Some("w"), Some(token)), EMPTY, &[]).await, End::Answered);
}

#[tokio::test]
async fn n147_streams_that_are_reset_at_once_end_their_connection() {
    let (_world, address, token) = place().await;
    let opened = block(&usual(Some("w"), Some(&token)));
    let reset = ENHANCE_YOUR_CALM.to_be_bytes();
    // A window that grows by nothing would make the server reset the stream: it ends the connection.
    for (what, kind, payload, ends_with) in [
        ("reset", RST_STREAM, &reset[..], ENHANCE_YOUR_CALM),
        ("a bad window", WINDOW_UPDATE, &[0; 4][..], PROTOCOL_ERROR),
    ] {
        let mut wire = Wire::open(address).await;
        let mut sent = 0;
        for number in 0..100_000_u32 {
            let stream = number * 2 + 1;
            let frames = [frame(HEADERS, END_HEADERS, stream, &opened), frame(kind, 0, stream, payload)].concat();
            if !wire.send(&frames).await {
                break;
            }
            sent += 1;
            if number == 500 {
                others_are_served(address, &token).await;
            }
            tokio::task::yield_now().await;
        }
        assert!(sent < 100_000, "{what}: all were taken");
        let code = wire.goodbye().await;
        assert!(code.is_none_or(|code| code == ends_with), "{what}: {code:?}");
        others_are_served(address, &token).await;
    }
}

#[tokio::test]
async fn n148_headers_and_data_without_end_end_their_connection() {
    let (_world, address, token) = place().await;
    let opened = block(&usual(Some("w"), Some(&token)));
    let junk = block(&[("x-junk", &"j".repeat(16_000))]);
    for (what, first, next) in [
        ("headers", frame(HEADERS, 0, 1, &opened), frame(CONTINUATION, 0, 1, &junk)),
        ("empty headers", frame(HEADERS, 0, 1, &opened), frame(CONTINUATION, 0, 1, &[])),
        ("empty data", frame(HEADERS, END_HEADERS, 1, &opened), frame(DATA, 0, 1, &[])),
    ] {
        let mut wire = Wire::open(address).await;
        wire.send(&first).await;
        let mut sent = 0;
        while sent < 200_000 && wire.send(&next).await {
            sent += 1;
            tokio::task::yield_now().await;
        }
        assert!(sent < 200_000, "{what}: all was taken");
        others_are_served(address, &token).await;
    }
    // One entry of the table of headers, ten thousand times: 40 MB of headers in 14 kB.
    let mut bomb = opened.clone();
    bomb.extend([0x40, 1, b'x', 127, 0xa1, 0x1e]);
    bomb.extend([b'j'; 4000]);
    let small = [&bomb[..], &[0xbe]].concat();
    bomb.extend([0xbe; 10_000]);
    for (block, fine) in [(small, true), (bomb, false)] {
        let mut wire = Wire::open(address).await;
        wire.send(&[frame(HEADERS, END_HEADERS, 1, &block), frame(DATA, END_STREAM, 1, EMPTY)].concat()).await;
        assert_eq!(wire.end().await == End::Answered, fine, "{} bytes", block.len());
        others_are_served(address, &token).await;
    }
}
