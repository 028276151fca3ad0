//! `bmi login` and `bmi logout`.

use std::time::{Duration, Instant};

use bmi_api::{Code, DeviceAnswer, DeviceQuestion, DeviceSignIn, DeviceState, NewDeviceSignIn, Whoami};
use reqwest::Method;

use crate::Session;
use crate::client::Client;
use crate::failure::Failure;
use crate::sessions;

const QUESTION: &str = "/v1/sign-in/device/token";
/// How long to wait after a question that could not be asked, in seconds.
const AGAIN_S: u64 = 5;

/// Signs in with a browser that may be on any machine.
#[expect(clippy::print_stderr, reason = "what the person must do is no result")]
pub(crate) async fn login(session: &Session, provider: Option<String>) -> Result<(), Failure> {
    // Whoever signs in is nobody yet.
    let client = session.client.anonymous();
    let begun: DeviceSignIn = client.post("/v1/sign-in/device", &NewDeviceSignIn { provider }).await?;
    let until = Instant::now() + Duration::from_secs(begun.expires_in_s);
    eprintln!("Open {}\nand enter the code {}", begun.verification_uri, begun.user_code);
    if let Some(whole) = &begun.verification_uri_complete {
        eprintln!("or open {whole}");
    }
    let token = wait(&client, &begun, until).await?;
    sessions::keep(client.server(), &token.token)?;
    let whoami: Whoami = client.with_token(&token.token).get("/v1/whoami").await?;
    session
        .output
        .done(&format!("signed in as {} ({}) until {}", whoami.display, whoami.subject, token.expires_at))
}

async fn wait(client: &Client, begun: &DeviceSignIn, until: Instant) -> Result<bmi_api::Session, Failure> {
    let question = DeviceQuestion { device: begun.device.clone() };
    let mut pause_s = begun.interval_s;
    loop {
        let pause = Duration::from_secs(pause_s.max(1));
        if Instant::now() + pause > until {
            return Err(Failure::Operation("nobody signed in in time; begin again".to_owned()));
        }
        tokio::time::sleep(pause).await;
        let answer: DeviceAnswer = match client.post(QUESTION, &question).await {
            Ok(answer) => answer,
            // It passes, and the code still counts.
            Err(Failure::Unreachable { .. }) => {
                pause_s = pause_s.max(AGAIN_S);
                continue;
            }
            Err(Failure::Refused(problem))
                if matches!(problem.code, Code::Unavailable | Code::TooManyRequests) =>
            {
                pause_s = pause_s.saturating_mul(2).max(AGAIN_S);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        match (answer.state, answer.session) {
            (DeviceState::SignedIn, Some(session)) => return Ok(session),
            // RFC 8628 section 3.5: it stays slower from now on.
            (DeviceState::SlowDown, _) => pause_s = pause_s.saturating_add(AGAIN_S).max(answer.interval_s),
            _ => pause_s = pause_s.max(answer.interval_s),
        }
    }
}

/// Ends the session, at the server and here.
pub(crate) async fn logout(session: &Session) -> Result<(), Failure> {
    let client = &session.client;
    if !client.has_token() {
        return session.output.done("nobody was signed in");
    }
    let ended = client.send(client.request(Method::POST, "/v1/sign-out")).await;
    match ended {
        Ok(_) => {}
        // One that has ended already is what was wanted.
        Err(Failure::Refused(problem)) if problem.status == 401 => {}
        Err(failure) => return Err(failure),
    }
    if client.token_is_of_session() {
        sessions::forget(client.server())?;
    }
    session.output.done("signed out")
}
