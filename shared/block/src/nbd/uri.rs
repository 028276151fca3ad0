//! Where an export is: `nbd+unix:///EXPORT?socket=PATH` (the NBD URI specification, `doc/uri.md`).
//!
//! Deliberately absent: TCP and TLS (the server runs on this host, and the socket's directory says who may reach it),
//! sockets in the abstract namespace (they have no permissions).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

/// The scheme, up to where the export's name begins.
const SCHEME: &str = "nbd+unix://";
/// What the kernel takes as the path of a socket, in bytes: `sun_path` without its NUL (unix(7)).
const SOCKET_MAX: usize = 107;
/// The longest name of an export, in bytes ("Values", strings).
const EXPORT_MAX: usize = 4096;

/// Why a text is not such a URI; each says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Another scheme.
    #[error("an NBD URI begins with `nbd+unix://`, as in `nbd+unix:///EXPORT?socket=PATH`")]
    Scheme,
    /// A host where none belongs.
    #[error("a unix socket has no host: write three slashes, as in `nbd+unix:///EXPORT?socket=PATH`")]
    Authority,
    /// A fragment.
    #[error("`#` has no meaning here; in a name or a path it is written `%23`")]
    Fragment,
    /// No socket.
    #[error("the socket is missing; add `?socket=PATH`")]
    NoSocket,
    /// Two sockets.
    #[error("`socket` is there twice; one export has one socket")]
    TwoSockets,
    /// A parameter that nobody knows.
    #[error("the parameter `{0}` is unknown; only `socket` is known, and `&` in a path is written `%26`")]
    Parameter(String),
    /// A `%` without two hexadecimal digits.
    #[error("`%` is followed by two hexadecimal digits; `%` itself is written `%25`")]
    Percent,
    /// A socket that the kernel cannot name.
    #[error("the path of the socket must have 1 to 107 bytes, none of them NUL")]
    Socket,
    /// A name that the protocol cannot carry.
    #[error("the name of the export must be UTF-8 of at most 4096 bytes, none of them NUL")]
    Export,
}

/// Where an export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// The path of the server's socket.
    pub socket: PathBuf,
    /// The name of the export. Empty is the server's default export.
    pub export: String,
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let rest = text.strip_prefix(SCHEME).ok_or(UriError::Scheme)?;
        if rest.contains('#') {
            return Err(UriError::Fragment);
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let name = match path.strip_prefix('/') {
            Some(name) => name,
            None if path.is_empty() => "",
            None => return Err(UriError::Authority),
        };
        let export = String::from_utf8(decode(name)?).map_err(|_| UriError::Export)?;
        if export.len() > EXPORT_MAX || export.contains('\0') {
            return Err(UriError::Export);
        }
        Ok(Self { socket: socket(query)?, export })
    }
}

fn socket(query: &str) -> Result<PathBuf, UriError> {
    let mut found = None;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if key != "socket" {
            return Err(UriError::Parameter(key.to_owned()));
        }
        if found.replace(decode(value)?).is_some() {
            return Err(UriError::TwoSockets);
        }
    }
    let path = OsString::from_vec(found.ok_or(UriError::NoSocket)?);
    let bytes = path.as_bytes();
    if bytes.is_empty() || bytes.len() > SOCKET_MAX || bytes.contains(&0) {
        return Err(UriError::Socket);
    }
    Ok(PathBuf::from(path))
}

/// Undoes the percent-encoding (RFC 3986 section 2.1). `+` is a plus.
fn decode(text: &str) -> Result<Vec<u8>, UriError> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
            let (Some(high), Some(low)) = (digit(), digit()) else { return Err(UriError::Percent) };
            u8::try_from(high * 16 + low).map_err(|_| UriError::Percent)?
        } else {
            byte
        });
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(socket: &str, export: &str) -> Result<Uri, UriError> {
        Ok(Uri { socket: PathBuf::from(socket), export: export.to_owned() })
    }

    #[test]
    fn names_and_paths_are_decoded() {
        for (text, socket, export) in [
            ("nbd+unix:///?socket=/run/nbd.sock", "/run/nbd.sock", ""),
            ("nbd+unix://?socket=nbd.sock", "nbd.sock", ""),
            ("nbd+unix:///disk?socket=/run/nbd.sock", "/run/nbd.sock", "disk"),
            ("nbd+unix:////disk?socket=/a", "/a", "/disk"),
            ("nbd+unix:///hello%20world%3f?socket=/a%26b+c", "/a&b+c", "hello world?"),
            ("nbd+unix:///%C3%a4?socket=/a?b", "/a?b", "ä"),
        ] {
            assert_eq!(text.parse(), uri(socket, export), "{text}");
        }
    }

    #[test]
    fn every_fault_says_what_would_be_right() {
        let long = format!("nbd+unix:///?socket=/{}", "a".repeat(107));
        let name = format!("nbd+unix:///{}?socket=/a", "a".repeat(4097));
        for (text, fault) in [
            ("nbd://host/disk", UriError::Scheme),
            ("nbds+unix:///?socket=/a", UriError::Scheme),
            ("/dev/sda", UriError::Scheme),
            ("nbd+unix://host/disk?socket=/a", UriError::Authority),
            ("nbd+unix:///a#b?socket=/a", UriError::Fragment),
            ("nbd+unix:///disk", UriError::NoSocket),
            ("nbd+unix:///disk?", UriError::NoSocket),
            ("nbd+unix:///?socket=/a&socket=/b", UriError::TwoSockets),
            ("nbd+unix:///?socket=/a&tls-type=psk", UriError::Parameter("tls-type".to_owned())),
            ("nbd+unix:///?socket=/a%2", UriError::Percent),
            ("nbd+unix:///%zz?socket=/a", UriError::Percent),
            ("nbd+unix:///?socket=", UriError::Socket),
            ("nbd+unix:///?socket=%00a", UriError::Socket),
            (&long, UriError::Socket),
            ("nbd+unix:///%ff?socket=/a", UriError::Export),
            ("nbd+unix:///a%00?socket=/a", UriError::Export),
            (&name, UriError::Export),
        ] {
            assert_eq!(text.parse::<Uri>(), Err(fault), "{text}");
        }
    }
}
