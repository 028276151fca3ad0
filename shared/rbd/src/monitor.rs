//! Commands of the monitors.

use std::os::raw::c_char;
use std::ptr;
use std::sync::Arc;

use serde_json::Value;

use crate::cluster::{Cluster, Handle};
use crate::error::RbdError;
use crate::sys;
use crate::text::to_c;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The monitors refuse.
    #[error("`{command}` was refused: {reason}")]
    Refused {
        /// Which command, without what it was told.
        command: String,
        /// What they say.
        reason: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// They do not answer in time, or the call could not be made. What was asked may be done all the same.
    #[error(transparent)]
    Call(#[from] RbdError),
    /// They answer something else than is expected.
    #[error("`{command}` was answered with what cannot be understood")]
    Answer {
        /// Which command.
        command: String,
        /// What is wrong with the answer.
        #[source]
        source: serde_json::Error,
    },
}

impl CommandError {
    /// The `errno`; 0 when there is none.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Refused { source, .. } => source.raw_os_error().unwrap_or(0),
            Self::Call(error) => error.errno(),
            Self::Answer { .. } => 0,
        }
    }
}

/// What the monitors said.
struct Said {
    returned: i32,
    answer: Vec<u8>,
    status: Vec<u8>,
}

impl Cluster {
    /// Gives the monitors a command, `{"prefix": "osd blocklist ls"}`, and takes their answer; null when it is empty.
    ///
    /// # Errors
    /// When they refuse, or do not answer in time.
    pub async fn command(&self, mut command: Value) -> Result<Value, CommandError> {
        let name = command.get("prefix").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(fields) = command.as_object_mut() {
            fields.entry("format").or_insert_with(|| Value::String("json".to_owned()));
        }
        let (handle, text) = (Arc::clone(&self.0), command.to_string());
        let place = format!("client.{}", self.user());
        let said = self
            .0
            .threads
            .run("give the monitors a command as", &place, self.0.limit, move || say(&handle, &text))
            .await?;
        if said.returned < 0 {
            return Err(CommandError::Refused {
                command: name,
                reason: String::from_utf8_lossy(&said.status).trim().to_owned(),
                source: std::io::Error::from_raw_os_error(-said.returned),
            });
        }
        // Some commands say something for people after the JSON.
        let mut answers = serde_json::Deserializer::from_slice(&said.answer).into_iter::<Value>();
        match answers.next() {
            None => Ok(Value::Null),
            Some(Ok(answer)) => Ok(answer),
            Some(Err(source)) => Err(CommandError::Answer { command: name, source }),
        }
    }
}

fn say(handle: &Handle, command: &str) -> Result<Said, i32> {
    let command = to_c(command)?;
    let mut commands = [command.as_ptr()];
    let mut answer = Buffer::default();
    let mut status = Buffer::default();
    // SAFETY: the client is connected, there is one command, which ends with a NUL, and no input; the pointers are where
    // the library puts buffers of its own and their lengths.
    let returned = unsafe {
        sys::rados_mon_command(
            handle.raw,
            commands.as_mut_ptr(),
            commands.len(),
            ptr::null(),
            0,
            &raw mut answer.at,
            &raw mut answer.length,
            &raw mut status.at,
            &raw mut status.length,
        )
    };
    Ok(Said { returned, answer: answer.copy(), status: status.copy() })
}

/// A buffer that the library gives away.
struct Buffer {
    at: *mut c_char,
    length: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { at: ptr::null_mut(), length: 0 }
    }
}

impl Buffer {
    fn copy(&self) -> Vec<u8> {
        if self.at.is_null() {
            return Vec::new();
        }
        // SAFETY: the library filled as many bytes as it said, and they are not freed before this buffer goes.
        unsafe { std::slice::from_raw_parts(self.at.cast::<u8>(), self.length) }.to_vec()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.at.is_null() {
            // SAFETY: the library gave it for this, and nobody has it any more.
            unsafe { sys::rados_buffer_free(self.at) };
        }
    }
}
