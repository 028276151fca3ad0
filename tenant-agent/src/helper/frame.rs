//! Messages over a stream: four bytes of length, most significant first, then JSON.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest message: the boot services' configuration for the largest network, 8 MiB, and its envelope.
const LONGEST: u32 = 9 * 1024 * 1024;

fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len().saturating_sub(4)).ok().filter(|length| *length <= LONGEST);
    let length = length.ok_or_else(|| io::Error::other("a message is too long to send"))?;
    for (to, from) in bytes.iter_mut().zip(length.to_be_bytes()) {
        *to = from;
    }
    Ok(bytes)
}

fn length(header: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(header);
    usize::try_from(length)
        .ok()
        .filter(|_| length <= LONGEST)
        .ok_or_else(|| io::Error::other("a message is longer than any real one"))
}

/// Sends one message.
///
/// # Errors
/// When the other side has gone.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    to.write_all(&encode(message)?).await
}

/// Receives one message; nothing at the end of the stream.
///
/// # Errors
/// When the stream breaks or the message is not one.
pub async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    let mut header = [0; 4];
    match from.read_exact(&mut header).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let mut body = vec![0; length(header)?];
    from.read_exact(&mut body).await?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// [`write`] without a runtime.
///
/// # Errors
/// As there.
pub fn write_blocking(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// [`read`] without a runtime.
///
/// # Errors
/// As there.
pub fn read_blocking<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut header = [0; 4];
    match from.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut body = vec![0; length(header)?];
    from.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_through_and_a_huge_one_does_not() {
        let mut wire = Vec::new();
        write_blocking(&mut wire, &"hello").unwrap();
        assert_eq!(read_blocking::<String>(&mut wire.as_slice()).unwrap().as_deref(), Some("hello"));
        assert_eq!(read_blocking::<String>(&mut &[][..]).unwrap(), None);
        assert!(read_blocking::<String>(&mut &[0xff, 0, 0, 0, b'x'][..]).is_err());
    }
}
