//! A target that was taken over: it gets the blocks of its volumes, and takes nothing from anybody.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::super::CONNECTIONS_MAX;
use super::super::connection::REQUESTS_MAX;
use super::client::{Client, request};
use super::{Rig, run};

/// Memory of this process, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn what_breaks_the_protocol_ends_its_connection_alone() {
    run(async {
        let rig = Rig::start(|_| {});
        let mut bystander = Client::connect(&rig.socket, "1").await.unwrap();
        let option = |kind: u32, length: u32| {
            [&3_u32.to_be_bytes()[..], b"IHAVEOPT", &kind.to_be_bytes(), &length.to_be_bytes()].concat()
        };
        for greeting in [
            vec![0xff; 64],
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            option(7, u32::MAX),
            option(1, 8193),
            [option(1, 3), b"../".to_vec()].concat(),
        ] {
            let mut stream = UnixStream::connect(&rig.socket).await.unwrap();
            stream.write_all(&greeting).await.unwrap();
            let mut rest = Vec::new();
            // It may be a reset: bytes were left unread.
            let _ = stream.read_to_end(&mut rest).await;
            assert!(rest.len() < 200);
        }
        for bytes in [vec![0; 28], request(0, 1, 0, 0, (32 << 20) + 1), request(0, 1, 0, 0, u32::MAX)] {
            let mut client = rig.connect().await;
            client.stream.write_all(&bytes).await.unwrap();
            assert_eq!(client.answer().await, None);
        }
        assert!(rig.memory().calls.borrow().is_empty());
        assert!(bystander.read(0, 512).await.is_ok());
        assert_eq!(rig.connect().await.write(0, &[1; 512]).await, 0);
    });
}

#[test]
fn half_a_request_holds_nothing_up() {
    run(async {
        let rig = Rig::start(|_| {});
        for length in 0..28 {
            let mut client = rig.connect().await;
            client.stream.write_all(&request(0, 1, 0, 0, 512)[..length]).await.unwrap();
        }
        let mut client = rig.connect().await;
        client.stream.write_all(&[&request(0, 1, 0, 0, 32 << 20)[..], &[1; 100]].concat()).await.unwrap();
        assert_eq!(rig.connect().await.write(0, &[1; 512]).await, 0);
        assert_eq!(*rig.memory().calls.borrow(), ["write"]);
    });
}

#[test]
fn who_does_not_read_answers_gets_no_more_work_done() {
    run(async {
        let rig = Rig::start(|_| {});
        let mut client = rig.connect().await;
        let before = resident();
        let flood: Vec<u8> = (0..1000).flat_map(|cookie| request(0, 0, cookie, 0, 32 << 20)).collect();
        client.stream.write_all(&flood).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let reads = rig.memory().calls.borrow().len();
        assert!((1..=3).contains(&reads), "{reads} reads of 32 MiB");
        assert!(resident() < before + 200 * 1024, "{before} KiB, then {} KiB", resident());
    });
}

#[test]
fn requests_under_way_are_bounded_in_number() {
    run(async {
        let rig = Rig::start(|memory| memory.gate = Semaphore::new(0));
        let mut client = rig.connect().await;
        let flood: Vec<u8> = (0..5000).flat_map(|cookie| request(0, 0, cookie, 0, 1)).collect();
        client.stream.write_all(&flood).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(rig.memory().calls.borrow().len(), REQUESTS_MAX);
        rig.memory().gate.add_permits(1);
        for _ in 0..5000 {
            assert_eq!(client.answer().await.unwrap().0, 0);
            client.stream.read_u8().await.unwrap();
        }
    });
}

#[test]
fn ten_thousand_connections_are_served_a_few_at_a_time() {
    run(async {
        let rig = Rig::start(|_| {});
        for attempt in 0..10_000 {
            // One that finds no room in the kernel's queue is refused at once.
            let _ = UnixStream::connect(&rig.socket).await;
            if attempt % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let mut open = Vec::new();
        for _ in 0..200 {
            open.extend(UnixStream::connect(&rig.socket).await);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let greeted =
            open.iter().filter(|stream| stream.try_read(&mut [0; 18]).is_ok_and(|count| count > 0)).count();
        assert!(greeted <= CONNECTIONS_MAX, "{greeted} are served at once");
        drop(open);
        assert_eq!(rig.connect().await.write(0, &[1; 512]).await, 0, "it is still there");
    });
}
