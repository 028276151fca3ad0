//! Events: one JSON line each on standard output, as [`NetbootEvent`] defines them.
//!
//! Deliberately absent: a queue. A line is written at once; when the reader has gone, it is lost and boot goes on.

use std::io::Write;
use std::sync::Arc;

use bmi_agent_api::event::{LINE_MAX, NetbootEvent};

/// Where events go. Tests collect them.
#[derive(Clone)]
pub struct Events(Arc<dyn Fn(NetbootEvent) + Send + Sync>);

impl Events {
    /// Events as lines on standard output.
    #[must_use]
    pub fn to_stdout() -> Self {
        Self(Arc::new(|event| {
            let Ok(mut line) = serde_json::to_vec(&event) else { return };
            line.push(b'\n');
            if line.len() > LINE_MAX {
                return;
            }
            let mut out = std::io::stdout().lock();
            if let Err(error) = out.write_all(&line).and_then(|()| out.flush()) {
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
