//! Server-sent events, as the server sends them: a name and one line of JSON each.
//!
//! Deliberately absent: coming back after a break by itself. Whoever reads knows whether that makes sense.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use reqwest::Method;

use crate::client::Client;
use crate::failure::Failure;

/// The longest line that is read: a stage or an instance has a few KiB.
const LINE_MAX: usize = 1 << 20;

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// A stream that is open.
pub(crate) struct Events {
    bytes: BoxStream<'static, Result<Bytes, reqwest::Error>>,
    lines: Lines,
}

impl Events {
    /// Opens a stream.
    pub(crate) async fn open(client: &Client, path: &str) -> Result<Self, Failure> {
        let answer = client.send(client.request(Method::GET, path)).await?;
        Ok(Self { bytes: answer.bytes_stream().boxed(), lines: Lines::default() })
    }

    /// The next event; nothing at the end, and when the connection breaks.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.lines.ready.pop_front() {
                return Some(event);
            }
            let bytes = self.bytes.try_next().await.ok()??;
            self.lines.add(&bytes)?;
        }
    }
}

/// Puts lines together, and events from them.
#[derive(Default)]
struct Lines {
    rest: BytesMut,
    name: String,
    ready: VecDeque<Event>,
}

impl Lines {
    /// Nothing when a line never ends.
    fn add(&mut self, bytes: &[u8]) -> Option<()> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(end + 1);
            let line = String::from_utf8_lossy(&line);
            match line.trim_end().split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut self.name),
                Some(("data", data)) => {
                    let name = std::mem::take(&mut self.name);
                    self.ready.push_back(Event { name, data: data.to_owned() });
                }
                _ => {}
            }
        }
        (self.rest.len() <= LINE_MAX).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_put_together_from_any_pieces() {
        let text = b"event: stage\ndata: {\"a\":1}\n\n:\n\nevent: gone\nid: end\ndata: {}\n\n";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            for piece in text.chunks(size) {
                lines.add(piece).unwrap();
            }
            let event = |name: &str, data: &str| Event { name: name.to_owned(), data: data.to_owned() };
            assert_eq!(
                lines.ready,
                [event("stage", "{\"a\":1}"), event("gone", "{}")],
                "in pieces of {size}"
            );
        }
        assert_eq!(Lines::default().add(&vec![b'x'; LINE_MAX + 1]), None);
    }
}
