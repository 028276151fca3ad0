//! Sending: bytes from their buffers, and what lies in a store from there, without a copy (sendfile(2)).

use std::io::{self, ErrorKind, IoSlice};
use std::net::TcpStream;

use bmi_iscsi::{Connection, Outgoing, Range};
use rustix::fs::sendfile;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::peer::retry;
use super::shared::Shared;

/// Pieces in one write.
const PIECES: usize = 128;

/// Sends what there is to send, as far as the socket takes it now.
///
/// # Errors
/// When the connection is of no use any more. Also when a store does not give what it said it holds: the header of the
/// data is on its way then, so there is nothing else to say.
pub fn send(stream: &TcpStream, connection: &mut Connection, shared: &Shared) -> io::Result<()> {
    while connection.outgoing_bytes() > 0 {
        let sent = match connection.outgoing().next() {
            Some(Outgoing::Stored { lun, range }) => send_stored(stream, shared, lun, range),
            _ => send_bytes(stream, connection),
        };
        match sent {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => connection.sent(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if retry(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends the bytes before the next piece that lies in a store. One follows: the kernel waits for it to fill a segment.
fn send_bytes(stream: &TcpStream, connection: &Connection) -> io::Result<usize> {
    let mut pieces = [IoSlice::new(&[]); PIECES];
    let mut count = 0;
    let mut flags = SendFlags::NOSIGNAL;
    for (place, piece) in pieces.iter_mut().zip(connection.outgoing()) {
        let Outgoing::Bytes(bytes) = piece else {
            flags |= SendFlags::MORE;
            break;
        };
        *place = IoSlice::new(bytes);
        count += 1;
    }
    let pieces = pieces.get(..count).unwrap_or(&[]);
    Ok(sendmsg(stream, pieces, &mut SendAncillaryBuffer::default(), flags)?)
}

fn send_stored(stream: &TcpStream, shared: &Shared, lun: u16, range: Range) -> io::Result<usize> {
    let file = shared.resident(lun, range).ok_or(ErrorKind::NotFound)?;
    let count = usize::try_from(range.length).unwrap_or(usize::MAX);
    let mut offset = range.offset;
    Ok(sendfile(stream, file, Some(&mut offset), count)?)
}
