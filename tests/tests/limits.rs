//! What protects the API from its callers and from the wire: limits, headers, TLS.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::path::Path;
use std::time::Duration;

use bmi_tests::{Deployment, STORE_SMALL, output, until};
use serde_json::json;

#[test]
fn too_many_requests_are_told_when_to_come_again_and_others_go_on() {
    let mut deployment = Deployment::start(STORE_SMALL);
    let limits =
        "[rate_limit]\ncaller_per_second = 1\ncaller_burst = 5\naddress_per_second = 1\naddress_burst = 8\n";
    deployment.rate_limit_configure(limits);
    let api = &deployment.api;
    let statuses: Vec<u16> = (0..12).map(|_| api.get("/v1/whoami").status).collect();
    let passed = statuses.iter().take_while(|status| **status == 200).count();
    // One more for each second that these took.
    assert!((5..12).contains(&passed) && statuses[passed] == 429, "{statuses:?}");
    let refused = api.get("/v1/whoami");
    assert_eq!((refused.status, refused.code().as_str()), (429, "too-many-requests"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=6).contains(&wait), "{wait}");
    // Nobody has to be somebody to be stopped.
    let nobody = api.authorized(None);
    until("the address is stopped too", Duration::from_secs(5), || {
        (nobody.get("/v1/whoami").status == 429).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(nobody.get("/healthz").status, 200, "who looks after the server is not counted");
    }
    std::thread::sleep(Duration::from_secs(wait + 1));
    api.get("/v1/whoami").expect(200);
}

#[test]
fn who_is_refused_all_the_time_does_not_fill_the_audit_log() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.api.project("lab");
    let account =
        json!({"name": "ci", "role": "project-viewer", "scopes": ["image:read"], "expires_days": 1});
    let made = deployment.api.post("/v1/projects/lab/service-accounts", &account).expect(201);
    deployment.rate_limit_configure("[rate_limit]\ndenied_per_minute = 1\ndenied_burst = 3\n");
    let api = &deployment.api;
    let robot = api.authorized(Some(&format!("Bearer {}", made["token"].as_str().unwrap())));
    let images = json!({"name": "new", "virtual_size": 1 << 20});
    let asked: Vec<_> = (0..5).map(|_| robot.post("/v1/projects/lab/images", &images)).collect();
    let statuses: Vec<u16> = asked.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [403, 403, 403, 429, 429]);
    assert!(asked[4].header("retry-after").is_some());
    let denied = api.get("/v1/audit?outcome=denied").expect(200)["items"].clone();
    assert_eq!(denied.as_array().unwrap().len(), 3, "{denied}");
    // What it may, it still may.
    robot.get("/v1/projects/lab/images").expect(200);
}

#[test]
fn a_body_that_does_not_come_ends_and_nobodys_is_small() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    let begin = "POST /v1/sign-in/device HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let large = api.open(format!("{begin}Content-Length: 5000\r\n\r\n").as_bytes());
    let slow = api.open(format!("{begin}Content-Length: 100\r\n\r\n{{").as_bytes());
    let answered = |stream: &std::net::TcpStream| {
        let mut said = [0; 12];
        std::io::Read::read_exact(&mut &*stream, &mut said).unwrap();
        String::from_utf8(said.to_vec()).unwrap()
    };
    assert_eq!(answered(&large), "HTTP/1.1 413");
    assert_eq!(answered(&slow), "HTTP/1.1 400");
}

#[test]
fn every_answer_has_the_headers_that_browsers_obey() {
    let deployment = Deployment::start(STORE_SMALL);
    let api = &deployment.api;
    for answer in
        [api.get("/healthz"), api.get("/v1/whoami"), api.authorized(None).get("/v1/whoami"), api.get("/x")]
    {
        for (name, value) in [
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("cross-origin-resource-policy", "same-origin"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        assert_eq!(answer.header("strict-transport-security"), None, "by HTTP it means nothing");
    }
    // Every route is compared with the path: one beyond any is refused before.
    let path = format!("/v1/projects/{}/images", "x".repeat(1024));
    let answer = api.authorized(None).get(&path);
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad-request"));
    assert!(!deployment.control_plane_log().contains(&"x".repeat(1024)));
    // A head without end is cut off, and the server goes on.
    let long = "x".repeat(300 << 10);
    let stream = api.open(format!("GET /v1/whoami HTTP/1.1\r\nHost: x\r\nX-Long: {long}").as_bytes());
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut &stream, &mut said).ok();
    assert!(!String::from_utf8_lossy(&said).contains("200 OK"));
    api.get("/v1/whoami").expect(200);
}

/// Writes a new certificate of a new authority, and gives the authority's file.
fn certify(directory: &Path, name: &str) -> String {
    let made =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let authority = directory.join(format!("{name}.pem"));
    std::fs::write(&authority, made.cert.pem()).unwrap();
    std::fs::write(directory.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(directory.join("tls.pem"), made.cert.pem()).unwrap();
    authority.to_str().unwrap().to_owned()
}

#[test]
fn tls_is_spoken_and_a_renewed_certificate_comes_into_force() {
    let mut deployment = Deployment::start(STORE_SMALL);
    let directory = deployment.data.clone();
    let first = certify(&directory, "first");
    let (key, certificate) = (directory.join("tls.key"), directory.join("tls.pem"));
    let settings = format!(
        "[tls]\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    deployment.control_plane_configure(&settings);
    let url = format!("https://{}/v1/whoami", deployment.api.address());
    let token = format!("Authorization: Bearer {}", deployment.token());
    let ask = |authority: &str, more: &[&str]| {
        let arguments = ["-sS", "-i", "--max-time", "5", "--cacert", authority, "-H", &token, &url];
        let asked = output("curl", &[&arguments[..], more].concat());
        asked.status.success().then(|| String::from_utf8_lossy(&asked.stdout).into_owned())
    };
    let answer = ask(&first, &[]).unwrap();
    assert!(answer.starts_with("HTTP/2 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.to_lowercase().contains("strict-transport-security: max-age="), "{answer}");
    assert!(ask(&first, &["--tls-max", "1.1"]).is_none(), "nothing older than TLS 1.2");
    let cli = std::process::Command::new(Deployment::built("bmi"))
        .args(["--server", &format!("https://{}", deployment.api.address()), "--ca-file", &first, "whoami"])
        .env("BMI_TOKEN_FILE", deployment.token_file())
        .output()
        .unwrap();
    assert!(cli.status.success(), "{cli:?}");

    let second = certify(&directory, "second");
    until("the renewed certificate is in force", Duration::from_secs(10), || ask(&second, &[]).map(drop));
    assert!(ask(&first, &[]).is_none(), "the old one is gone");
    std::fs::write(&certificate, "nothing\n").unwrap();
    std::thread::sleep(Duration::from_secs(4));
    assert!(ask(&second, &[]).is_some(), "what cannot be used leaves the old one in force");
}

#[test]
fn plain_http_that_others_reach_must_be_asked_for() {
    let deployment = Deployment::start(STORE_SMALL);
    let text = std::fs::read_to_string(deployment.data.join("control-plane.toml")).unwrap();
    let path = deployment.data.join("open.toml");
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let arguments = ["--config", path.to_str().unwrap(), "check-config"];
        output(Deployment::built("bmi-control-plane"), &arguments)
    };
    let open = text.replace("listen = \"127.0.0.1:0\"", "listen = \"0.0.0.0:0\"");
    assert_ne!(open, text);
    let refused = check(&open);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("tls.certificate_file"), "{refused:?}");
    assert_eq!(check(&format!("plain_http = true\n{open}")).status.code(), Some(0));
}
