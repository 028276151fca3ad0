//! Events: one JSON line each on standard output, as [`Line`] and [`NetbootEvent`] define them.
//!
//! Deliberately absent: a queue. A line is written at once; when the reader has gone or is late, it is lost and boot goes on.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use bmi_agent_api::event::{Line, NetbootEvent};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Where events go. Tests collect them.
#[derive(Clone)]
pub struct Events(Arc<dyn Fn(NetbootEvent) + Send + Sync>);

impl Events {
    /// Events as lines on standard output.
    #[must_use]
    pub fn to_stdout() -> Self {
        let out = std::io::stdout();
        // Nobody may wait for whoever reads it: a container's is read by its engine, which may be away.
        if !out.is_terminal()
            && let Err(error) =
                fcntl_getfl(&out).and_then(|flags| fcntl_setfl(&out, flags | OFlags::NONBLOCK))
        {
            tracing::warn!(%error, "standard output blocks: boots may wait for whoever reads events");
        }
        Self(Arc::new(|event| {
            let Ok(line) = Line::of_now(event) else { return };
            let mut out = std::io::stdout().lock();
            if let Err(error) = out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
                tracing::debug!(%error, "an event was lost");
            }
        }))
    }

    /// Events to a function.
    #[cfg(test)]
    pub fn to(sink: impl Fn(NetbootEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Says one.
    pub fn say(&self, event: NetbootEvent) {
        (self.0)(event);
    }
}
