//! A client that says what a test wants.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

pub struct Client {
    pub stream: UnixStream,
    pub size: u64,
    pub flags: u16,
}

impl Client {
    /// Connects to an export; nothing when the server ends the connection instead.
    pub async fn connect(socket: &Path, export: &str) -> Option<Self> {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).await.ok()?;
        let option = [&b"IHAVEOPT"[..], &1_u32.to_be_bytes(), &(export.len() as u32).to_be_bytes()].concat();
        stream.write_all(&[&3_u32.to_be_bytes()[..], &option, export.as_bytes()].concat()).await.ok()?;
        let size = stream.read_u64().await.ok()?;
        let flags = stream.read_u16().await.ok()?;
        Some(Self { stream, size, flags })
    }

    pub async fn send(
        &mut self,
        flags: u16,
        command: u16,
        cookie: u64,
        offset: u64,
        length: u32,
        data: &[u8],
    ) {
        let bytes = request(flags, command, cookie, offset, length);
        self.stream.write_all(&[&bytes[..], data].concat()).await.unwrap();
    }

    /// The next answer: its error and its cookie; nothing at the end of the connection.
    pub async fn answer(&mut self) -> Option<(u32, u64)> {
        let magic = self.stream.read_u32().await.ok()?;
        assert_eq!(magic, 0x6744_6698);
        let error = self.stream.read_u32().await.ok()?;
        Some((error, self.stream.read_u64().await.ok()?))
    }

    pub async fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>, u32> {
        self.send(0, 0, 77, offset, length, &[]).await;
        match self.answer().await.unwrap() {
            (0, 77) => {
                let mut data = vec![0; length as usize];
                self.stream.read_exact(&mut data).await.unwrap();
                Ok(data)
            }
            (error, 77) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub async fn write(&mut self, offset: u64, data: &[u8]) -> u32 {
        self.send(0, 1, 78, offset, data.len() as u32, data).await;
        let (error, cookie) = self.answer().await.unwrap();
        assert_eq!(cookie, 78);
        error
    }

    pub async fn command(&mut self, flags: u16, command: u16, offset: u64, length: u32) -> u32 {
        self.send(flags, command, 79, offset, length, &[]).await;
        let (error, cookie) = self.answer().await.unwrap();
        assert_eq!(cookie, 79);
        error
    }

    /// Says goodbye and waits until the server has ended the connection.
    pub async fn goodbye(mut self) {
        self.send(0, 2, 0, 0, 0, &[]).await;
        assert_eq!(self.answer().await, None);
    }
}

/// "Request message".
pub fn request(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let numbers =
        [&flags.to_be_bytes()[..], &command.to_be_bytes(), &cookie.to_be_bytes(), &offset.to_be_bytes()];
    [&0x2560_9513_u32.to_be_bytes()[..], &numbers.concat(), &length.to_be_bytes()].concat()
}
