//! Uploads: broken off, resumed, sealed; what is stored is what was sent.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use bmi_tests::{Deployment, STORE_SMALL, operation_end, sha256, until};
use serde_json::json;

const MIB: usize = 1 << 20;

/// A file of 24 MiB, with a hole of 8 MiB in the middle.
fn disk(deployment: &Deployment) -> (PathBuf, Vec<u8>) {
    let mut bytes = vec![0; 24 * MIB];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for (at, byte) in bytes.iter_mut().enumerate() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if !(8 * MIB..16 * MIB).contains(&at) {
            *byte = state.to_le_bytes()[0];
        }
    }
    let path = deployment.data.join("disk.raw");
    std::fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

fn offset(deployment: &Deployment, content: &str) -> usize {
    let answer = deployment.api.send("HEAD", content, &[], None);
    assert_eq!(answer.status, 200);
    answer.header("upload-offset").unwrap().parse().unwrap()
}

#[test]
fn a_broken_upload_goes_on_where_it_was() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    let (path, bytes) = disk(&deployment);
    let images = "/v1/projects/lab/images";
    deployment.api.post(images, &json!({"name": "disk", "virtual_size": bytes.len()})).expect(201);
    let content = format!("{images}/disk/content");
    assert_eq!(offset(&deployment, &content), 0);

    // All of it is announced, the connection is cut in the middle.
    let head = deployment.api.head("PATCH", &content, &[("Upload-Offset", "0")]);
    let mut stream = deployment.api.open(format!("{head}Content-Length: {}\r\n\r\n", bytes.len()).as_bytes());
    stream.write_all(&bytes[..10 * MIB + 77]).unwrap();
    drop(stream);
    // What came before the cut is kept, to the byte: the server had it.
    let kept = 10 * MIB + 77;
    until("the server has kept what it got", Duration::from_secs(20), || {
        (offset(&deployment, &content) == kept).then_some(())
    });

    // It survives a restart of the server, and goes on from the offset only.
    deployment.control_plane_stop();
    deployment.control_plane_start();
    assert_eq!(offset(&deployment, &content), kept);
    let mut at = kept;
    while at < bytes.len() {
        let end = bytes.len().min(at + 5 * MIB);
        let answer = deployment.api.send(
            "PATCH",
            &content,
            &[("Upload-Offset", &at.to_string())],
            Some(&bytes[at..end]),
        );
        assert_eq!(answer.status, 204);
        at = end;
        assert_eq!(answer.header("upload-offset"), Some(at.to_string().as_str()));
    }
    let operation = deployment.api.post(&format!("{images}/disk/seal"), &json!({})).expect(202);
    assert_eq!(operation_end(&deployment.api, &operation)["state"], "succeeded");
    let image = deployment.api.get(&format!("{images}/disk")).expect(200);
    assert_eq!(image["state"], "sealed");
    assert_eq!(image["sha256"], sha256(&path));
    assert!(image.get("upload").is_none(), "a sealed image has no upload: {image}");
    assert_eq!(deployment.api.send("HEAD", &content, &[], None).status, 409);
}

#[test]
fn the_cli_uploads_seals_and_goes_on_after_a_break() {
    let deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    let (path, bytes) = disk(&deployment);
    let file = path.to_str().unwrap();
    let cli = deployment.cli("lab");
    cli.run(&["image", "upload", "whole", "--file", file, "--seal", "--wait"]).ok();
    let image = cli.run(&["image", "show", "whole", "-o", "json"]).ok().json();
    assert_eq!((image["state"].clone(), image["sha256"].clone()), (json!("sealed"), json!(sha256(&path))));

    let body = json!({"name": "half", "virtual_size": bytes.len()});
    deployment.api.post("/v1/projects/lab/images", &body).expect(201);
    let content = "/v1/projects/lab/images/half/content";
    assert_eq!(
        deployment.api.send("PATCH", content, &[("Upload-Offset", "0")], Some(&bytes[..3 * MIB])).status,
        204
    );
    cli.run(&["image", "upload", "half", "--file", file, "--seal", "--wait"]).ok();
    let image = cli.run(&["image", "show", "half", "-o", "json"]).ok().json();
    assert_eq!(image["sha256"], sha256(&path));
    // Sealed is sealed.
    let again = cli.run(&["image", "upload", "half", "--file", file]);
    assert_ne!(again.status, 0);
    assert!(again.err.contains("sealed"), "{again:?}");
}

#[test]
fn two_uploads_at_once_never_mix() {
    let deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    let (path, bytes) = disk(&deployment);
    deployment
        .api
        .post("/v1/projects/lab/images", &json!({"name": "disk", "virtual_size": bytes.len()}))
        .expect(201);
    let content = "/v1/projects/lab/images/disk/content";
    // Somebody else sends other bytes at the same offsets; whoever is told "go on there" does.
    let others = vec![0xee_u8; bytes.len()];
    let bodies = [bytes, others];
    let send =
        |body: &[u8]| deployment.api.send("PATCH", content, &[("Upload-Offset", "0")], Some(body)).status;
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let callers: Vec<_> = bodies.iter().map(|body| scope.spawn(|| send(body))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|status| **status == 204).count(), 1, "one upload wins: {answers:?}");
    let told = answers.iter().filter(|status| matches!(status, 409 | 423)).count();
    assert_eq!(told, 1, "the other is told: {answers:?}");
    let operation = deployment.api.post("/v1/projects/lab/images/disk/seal", &json!({})).expect(202);
    assert_eq!(operation_end(&deployment.api, &operation)["state"], "succeeded");
    let image = deployment.api.get("/v1/projects/lab/images/disk").expect(200);
    let winner = answers.iter().position(|status| *status == 204).unwrap();
    std::fs::write(&path, &bodies[winner]).unwrap();
    assert_eq!(image["sha256"], sha256(&path), "what the winner sent is what is stored");
}

#[test]
fn s2_an_upload_ends_when_its_caller_may_not_any_more() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    api.project("lab");
    let accounts = "/v1/projects/lab/service-accounts";
    let account = json!({"name": "ci", "role": "project-member", "scopes": ["image:*"], "expires_days": 1});
    let made = api.post(accounts, &account).expect(201);
    let robot = api.authorized(Some(&format!("Bearer {}", made["token"].as_str().unwrap())));
    let images = "/v1/projects/lab/images";
    robot.post(images, &json!({"name": "disk", "virtual_size": 64 * MIB})).expect(201);
    let content = format!("{images}/disk/content");
    let head = robot.head("PATCH", &content, &[("Upload-Offset", "0")]);
    let mut stream = robot.open(format!("{head}Content-Length: {}\r\n\r\n", 64 * MIB).as_bytes());
    stream.write_all(&vec![1; 5 * MIB]).unwrap();
    until("the first piece is kept", Duration::from_secs(20), || {
        (offset(&deployment, &content) == 4 * MIB).then_some(())
    });
    api.delete(&format!("{accounts}/ci")).expect(204);
    // It is asked again every five seconds.
    std::thread::sleep(Duration::from_secs(6));
    stream.write_all(&vec![2; 8 * MIB]).ok();
    let mut said = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut said).unwrap();
    assert_eq!(String::from_utf8_lossy(&said), "HTTP/1.1 401");
    assert!(offset(&deployment, &content) <= 8 * MIB);
}
