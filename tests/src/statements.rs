//! The SQL statements that this process executes: their text, without values.
//!
//! Deliberately absent: whose they are. Whoever compares them has a process to itself, in which nothing else happens.

use std::sync::{Mutex, PoisonError};

use diesel::connection::{Instrumentation, InstrumentationEvent, set_default_instrumentation};

static EXECUTED: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn recorder() -> Option<Box<dyn Instrumentation>> {
    Some(Box::new(|event: InstrumentationEvent<'_>| {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            let text = query.to_string();
            // What follows are the values.
            let text = text.split(" -- binds:").next().unwrap_or_default().to_owned();
            EXECUTED.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
    }))
}

/// Records the statements of every connection that is made from now on.
pub fn statements_record() {
    set_default_instrumentation(recorder).unwrap();
}

/// The statements since the last time, in their order.
#[must_use]
pub fn statements_take() -> Vec<String> {
    std::mem::take(&mut *EXECUTED.lock().unwrap_or_else(PoisonError::into_inner))
}
