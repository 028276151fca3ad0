//! `bmi login`, as a person uses it.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::start;

#[test]
fn s2_somebody_logs_in_works_and_logs_out_with_the_cli() {
    let (deployment, provider) = start("");
    deployment.api.project("lab");
    let state = deployment.data.join("state");
    let cli = deployment.cli("lab").of_session(&state);
    assert_eq!(cli.run(&["whoami"]).status, 3, "nobody yet");

    let mut login = cli.command(&["login"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(login.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.next().unwrap().starts_with(&format!("Open {}/device", provider.issuer())));
    let code = said.next().unwrap().strip_prefix("and enter the code ").unwrap().to_owned();
    provider.device_decide("lin", &code, "confirm");
    let ended = login.wait_with_output().unwrap();
    let out = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{out}");
    assert!(out.contains("signed in as The person lin (user:corp:lin) until "), "{out}");

    let files: Vec<_> = std::fs::read_dir(state.join("bmi/sessions")).unwrap().flatten().collect();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let kept = std::fs::read_to_string(files[0].path()).unwrap();
    assert!(kept.starts_with("bmi-session-") && !out.contains(kept.trim()));

    let who = cli.run(&["whoami"]).ok().out.clone();
    for shown in ["user:corp:lin", "session", "The person lin", "project-member in ", "group:corp:lab"] {
        assert!(who.contains(shown), "{shown}: {who}");
    }
    cli.run(&["image", "list"]).ok();
    assert_eq!(cli.run(&["project", "create", "mine"]).status, 3);
    // A token file that is named wins.
    let admin = deployment.cli("lab").with("XDG_STATE_HOME", &state).run(&["whoami"]).ok().out.clone();
    assert!(admin.contains("local-admin"), "{admin}");
    // A session that others could read is not used.
    std::fs::set_permissions(files[0].path(), PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(cli.run(&["whoami"]).status, 2);
    std::fs::set_permissions(files[0].path(), PermissionsExt::from_mode(0o600)).unwrap();

    cli.run(&["logout"]).ok();
    assert_eq!(std::fs::read_dir(state.join("bmi/sessions")).unwrap().count(), 0);
    assert_eq!(cli.run(&["whoami"]).status, 3);
    assert_eq!(
        crate::holder(&deployment, kept.trim()).get("/v1/whoami").status,
        401,
        "the server ended it too"
    );
}

#[test]
fn s2_a_login_that_the_person_aborts_says_so() {
    let (deployment, provider) = start("");
    let cli = deployment.cli("lab").of_session(&deployment.data.join("state"));
    assert_eq!(cli.run(&["login", "--provider", "other"]).status, 4);
    let mut login = cli.command(&["login"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(login.stderr.take().unwrap()).lines().map(Result::unwrap);
    said.next();
    let code = said.next().unwrap().strip_prefix("and enter the code ").unwrap().to_owned();
    provider.device_decide("lin", &code, "abort");
    let rest: Vec<String> = said.collect();
    assert_eq!(login.wait().unwrap().code(), Some(3), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("begin again")), "{rest:?}");
}
