//! What is done when: in any order within a connection, never across two.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::client::{Client, request};
use super::{Ended, Rig, SIZE, run};

/// Long enough for everything that could happen to happen.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[test]
fn requests_are_under_way_together() {
    run(async {
        let rig = Rig::start(|memory| memory.gate = Semaphore::new(0));
        let mut client = rig.connect().await;
        for cookie in 0..64 {
            client.send(0, 1, cookie, cookie * 512, 512, &[1; 512]).await;
        }
        a_while().await;
        assert_eq!(rig.memory().calls.borrow().len(), 64);
        // A refusal overtakes all of them.
        client.send(0, 0, 100, SIZE as u64, 1, &[]).await;
        assert_eq!(client.answer().await, Some((22, 100)));
        rig.memory().gate.add_permits(1);
        let mut cookies = Vec::new();
        for _ in 0..64 {
            let (error, cookie) = client.answer().await.unwrap();
            assert_eq!(error, 0);
            cookies.push(cookie);
        }
        cookies.sort_unstable();
        assert_eq!(cookies, (0..64).collect::<Vec<u64>>());
    });
}

#[test]
fn a_successor_is_let_in_when_what_its_predecessor_began_is_over() {
    run(async {
        let rig = Rig::start(|memory| memory.gate = Semaphore::new(0));
        let mut first = rig.connect().await;
        first.send(0, 1, 1, 0, 512, &[1; 512]).await;
        a_while().await;
        assert_eq!(rig.memory().calls.borrow().len(), 1);
        // What is sent and not begun when the successor comes is never done.
        let half = [&request(0, 1, 2, 0, 1024)[..], &[2; 1000]].concat();
        first.stream.write_all(&half).await.unwrap();
        let socket = rig.socket.clone();
        let second = tokio::task::spawn_local(async move { Client::connect(&socket, "0").await });
        assert_eq!(first.answer().await, None, "the first has to go");
        a_while().await;
        assert!(!second.is_finished(), "its write is still under way");
        let _ = first.stream.write_all(&[2; 24]).await;
        rig.memory().gate.add_permits(1);
        let mut second = second.await.unwrap().unwrap();
        assert_eq!(second.write(0, &[3; 256]).await, 0);
        assert_eq!(second.read(0, 512).await, Ok([[3; 256], [1; 256]].concat()));
        assert_eq!(*rig.memory().calls.borrow(), ["write", "write", "read"]);
    });
}

#[test]
fn of_several_successors_the_last_is_let_in() {
    run(async {
        let rig = Rig::start(|memory| memory.gate = Semaphore::new(0));
        let mut first = rig.connect().await;
        first.send(0, 1, 1, 0, 512, &[1; 512]).await;
        a_while().await;
        let mut successors = Vec::new();
        for _ in 0..3 {
            let socket = rig.socket.clone();
            successors.push(tokio::task::spawn_local(async move { Client::connect(&socket, "0").await }));
            a_while().await;
        }
        rig.memory().gate.add_permits(1);
        let mut last = successors.pop().unwrap().await.unwrap().expect("the last is let in");
        assert_eq!(last.write(0, &[3; 512]).await, 0);
        for other in successors {
            assert!(other.await.unwrap().is_none());
        }
    });
}

#[test]
fn exports_do_not_wait_for_each_other() {
    run(async {
        let rig = Rig::start(|memory| memory.gate = Semaphore::new(0));
        let mut first = rig.connect().await;
        first.send(0, 1, 1, 0, 512, &[1; 512]).await;
        let mut other = Client::connect(&rig.socket, "1").await.unwrap();
        assert!(other.read(0, 512).await.is_ok());
    });
}

#[test]
fn the_end_waits_for_what_is_under_way() {
    run(async {
        let rig = Rig::start(|memory| memory.gate = Semaphore::new(0));
        let mut client = rig.connect().await;
        client.send(0, 1, 1, 0, 512, &[1; 512]).await;
        a_while().await;
        let exports = std::rc::Rc::clone(&rig.exports);
        let ended = tokio::task::spawn_local(rig.stop());
        a_while().await;
        assert!(!ended.is_finished());
        exports[0].volume.gate.add_permits(1);
        assert_eq!(ended.await.unwrap(), Ended::Stopped);
        assert_eq!(exports[0].volume.blocks.borrow()[..512], [1; 512]);
    });
}
