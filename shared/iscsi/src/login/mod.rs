//! Login phase (RFC 7143 section 6.3): stages, identity, authentication, negotiation.
//!
//! [`Login`] takes one whole login request at a time and says what to answer. It does not know sessions: who may have
//! one is asked of the caller, as is the secret of a CHAP user.
//!
//! Invariant: with CHAP required, no path leads to [`Step::Admit`] without a verified response.

mod chap;
mod negotiate;
mod status;

use chap::{Algorithm, Counter};
pub use chap::{Challenge, Mutual};
pub use negotiate::Parameters;
pub use status::Status;

use crate::config::{LOGIN_REQUESTS, PORTAL_GROUP, RECEIVE_SEGMENT, TEXT_MAX, TargetConfig};
use crate::header::{Header, Isid};
use crate::{text, wire};

/// Stages (RFC 7143 section 11.12.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// 0: entered by the first request; left when authentication is settled.
    Security,
    /// 1: entered from the first request or from security; left for full feature phase.
    Operational,
    /// 3: never left.
    Full,
}

impl Stage {
    const fn read(bits: u8) -> Option<Self> {
        match bits & 3 {
            0 => Some(Self::Security),
            1 => Some(Self::Operational),
            3 => Some(Self::Full),
            _ => None,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Security => 0,
            Self::Operational => 1,
            Self::Full => 3,
        }
    }
}

/// Why a login ends.
#[derive(Debug)]
pub struct Refusal {
    /// What the initiator is told.
    pub status: Status,
    /// What the log is told. Never a secret.
    pub reason: &'static str,
}

const fn refuse<T>(status: Status, reason: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status, reason })
}

/// What to do after a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send a response with these flags and text.
    Answer(u8, Vec<u8>),
    /// Ask for this user's secret, then call [`Login::verify`].
    Secret(String),
    /// Ask whether the session may begin; if so send these flags and text.
    Admit(u8, Vec<u8>),
}

/// Authentication so far.
#[derive(Debug)]
enum Authentication {
    /// Nothing agreed on.
    Open,
    /// `AuthMethod=CHAP` was answered; the initiator names algorithms next.
    Method,
    /// The challenge was sent.
    Challenged(Algorithm),
    /// A response waits for its user's secret. Holds the transition the initiator asked for, and its own challenge if it
    /// wants this side to prove itself too.
    Verifying { algorithm: Algorithm, response: Vec<u8>, counter: Option<Counter>, transit: Option<Stage> },
    /// Settled.
    Done,
}

/// One login in progress.
#[derive(Debug)]
pub struct Login {
    /// Session parameters negotiated so far.
    pub parameters: Parameters,
    /// The initiator's name, in lower case, once given.
    pub initiator: String,
    /// The CHAP user that was verified.
    pub user: Option<String>,
    /// Whether it is a discovery session.
    pub discovery: bool,
    /// From the first request.
    pub isid: Isid,
    /// From the first request; 0 asks for a new session.
    pub tsih: u16,
    /// From the first request.
    pub cid: u16,
    /// Task tag, the same in every request.
    pub itt: u32,
    stage: Option<Stage>,
    authentication: Authentication,
    challenge: Challenge,
    collected: Vec<u8>,
    requests: u32,
    identified: bool,
    declared: bool,
}

impl Login {
    /// Before the first request.
    pub fn new(challenge: Challenge) -> Self {
        Self {
            parameters: Parameters::default(),
            initiator: String::new(),
            user: None,
            discovery: false,
            isid: Isid([0; 6]),
            tsih: 0,
            cid: 0,
            itt: 0,
            stage: None,
            authentication: Authentication::Open,
            challenge,
            collected: Vec::new(),
            requests: 0,
            identified: false,
            declared: false,
        }
    }

    /// The bits of the current stage in both fields: what a refusal carries.
    pub fn stage_flags(&self) -> u8 {
        self.stage.map_or(0, |stage| stage.bits() << 2)
    }

    /// Takes a request.
    pub fn request(&mut self, config: &TargetConfig, header: &Header, data: &[u8]) -> Result<Step, Refusal> {
        self.check_header(config, header)?;
        if self.collected.len() + data.len() > TEXT_MAX {
            return refuse(Status::INITIATOR_ERROR, "too much text");
        }
        self.collected.extend_from_slice(data);
        let Some(stage) = self.stage else { return refuse(Status::INITIATOR_ERROR, "no stage") };
        if header.continues() {
            if header.is_final() || data.is_empty() {
                return refuse(Status::INITIATOR_ERROR, "C bit with T bit or without data");
            }
            return Ok(Step::Answer(stage.bits() << 2, Vec::new()));
        }
        let transit = match (header.is_final(), Stage::read(header.flags())) {
            (false, _) => None,
            (true, Some(next)) if next.bits() > stage.bits() => Some(next),
            (true, _) => return refuse(Status::INITIATOR_ERROR, "bad next stage"),
        };
        let collected = std::mem::take(&mut self.collected);
        let Ok(pairs) = text::parse(&collected) else {
            return refuse(Status::INITIATOR_ERROR, "malformed text");
        };
        let mut answer = Vec::new();
        if !self.identified {
            self.identify(config, &pairs, &mut answer)?;
        }
        self.parameters.negotiate(&pairs, &mut answer, self.discovery)?;
        match stage {
            Stage::Security => self.authenticate(config, &pairs, transit, answer),
            Stage::Operational | Stage::Full => self.proceed(stage, transit, answer),
        }
    }

    fn check_header(&mut self, config: &TargetConfig, header: &Header) -> Result<(), Refusal> {
        self.requests += 1;
        if self.requests > LOGIN_REQUESTS {
            return refuse(Status::INITIATOR_ERROR, "too many login requests");
        }
        if wire::u8_at(&header.0, 3) != 0 {
            return refuse(Status::UNSUPPORTED_VERSION, "unsupported version");
        }
        let isid = Isid(wire::array_at(&header.0, 8));
        let (tsih, cid) = (wire::u16_at(&header.0, 14), wire::u16_at(&header.0, 20));
        let current = Stage::read(header.flags() >> 2);
        let Some(stage) = self.stage else {
            self.itt = header.itt();
            (self.isid, self.tsih, self.cid) = (isid, tsih, cid);
            let Some(first @ (Stage::Security | Stage::Operational)) = current else {
                return refuse(Status::INITIATOR_ERROR, "bad first stage");
            };
            self.stage = Some(first);
            if first == Stage::Operational {
                if config.chap {
                    return refuse(Status::AUTHENTICATION_FAILED, "authentication was skipped");
                }
                self.authentication = Authentication::Done;
            }
            return Ok(());
        };
        if (header.itt(), isid, tsih, cid) != (self.itt, self.isid, self.tsih, self.cid) {
            return refuse(Status::INITIATOR_ERROR, "login requests do not belong together");
        }
        if current != Some(stage) {
            return refuse(Status::INITIATOR_ERROR, "bad current stage");
        }
        Ok(())
    }

    /// The first whole request says who calls whom. The list of initiators comes before the target's name, so that
    /// a stranger cannot tell which names exist.
    fn identify(
        &mut self,
        config: &TargetConfig,
        pairs: &[(&str, &str)],
        answer: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let find = |wanted| pairs.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
        let Some(initiator) = find("InitiatorName").filter(|name| !name.is_empty() && name.len() <= 223)
        else {
            return refuse(Status::MISSING_PARAMETER, "no initiator name");
        };
        self.initiator = initiator.to_ascii_lowercase();
        self.discovery = match find("SessionType") {
            None | Some("Normal") => false,
            Some("Discovery") => true,
            Some(_) => return refuse(Status::UNSUPPORTED_SESSION, "unknown session type"),
        };
        if !config.allows(&self.initiator) {
            return refuse(Status::FORBIDDEN, "initiator is not on the list");
        }
        if !self.discovery {
            match find("TargetName").map(str::to_ascii_lowercase) {
                None => return refuse(Status::MISSING_PARAMETER, "no target name"),
                Some(name) if name != config.name => return refuse(Status::NOT_FOUND, "no such target"),
                Some(_) => text::push(answer, "TargetPortalGroupTag", &PORTAL_GROUP.to_string()),
            }
        }
        self.identified = true;
        Ok(())
    }

    fn authenticate(
        &mut self,
        config: &TargetConfig,
        pairs: &[(&str, &str)],
        transit: Option<Stage>,
        mut answer: Vec<u8>,
    ) -> Result<Step, Refusal> {
        let find = |wanted| pairs.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
        let stay = Stage::Security.bits() << 2;
        if (find("CHAP_I").is_some() || find("CHAP_C").is_some())
            && !matches!(self.authentication, Authentication::Challenged(_))
        {
            return refuse(Status::AUTHENTICATION_FAILED, "a CHAP challenge out of turn");
        }
        match &self.authentication {
            Authentication::Open => match (find("AuthMethod"), config.chap) {
                (Some(offered), chap) => {
                    let wanted = if chap { "CHAP" } else { "None" };
                    if !offered.split(',').any(|method| method == wanted) {
                        return refuse(Status::AUTHENTICATION_FAILED, "no acceptable authentication method");
                    }
                    text::push(&mut answer, "AuthMethod", wanted);
                    if chap {
                        self.authentication = Authentication::Method;
                        return Ok(Step::Answer(stay, answer));
                    }
                    self.authentication = Authentication::Done;
                    self.proceed(Stage::Security, transit, answer)
                }
                (None, true) if transit.is_some() => {
                    refuse(Status::AUTHENTICATION_FAILED, "authentication was skipped")
                }
                (None, true) => Ok(Step::Answer(stay, answer)),
                (None, false) => self.proceed(Stage::Security, transit, answer),
            },
            Authentication::Method => {
                let Some(algorithm) = find("CHAP_A").and_then(Algorithm::choose) else {
                    return refuse(Status::AUTHENTICATION_FAILED, "no acceptable CHAP algorithm");
                };
                self.challenge.offer(algorithm, &mut answer);
                self.authentication = Authentication::Challenged(algorithm);
                Ok(Step::Answer(stay, answer))
            }
            Authentication::Challenged(algorithm) => {
                let algorithm = *algorithm;
                let (Some(user), Some(response)) = (find("CHAP_N"), find("CHAP_R").and_then(chap::decode))
                else {
                    return refuse(Status::AUTHENTICATION_FAILED, "no CHAP response");
                };
                let counter = self.counter(find("CHAP_I"), find("CHAP_C"))?;
                self.authentication = Authentication::Verifying { algorithm, response, counter, transit };
                self.user = Some(user.to_owned());
                Ok(Step::Secret(user.to_owned()))
            }
            Authentication::Verifying { .. } => refuse(Status::INITIATOR_ERROR, "request out of turn"),
            Authentication::Done => self.proceed(Stage::Security, transit, answer),
        }
    }

    /// The challenge that the initiator has for this side, if it has one.
    fn counter(&self, identifier: Option<&str>, challenge: Option<&str>) -> Result<Option<Counter>, Refusal> {
        let (identifier, challenge) = match (identifier, challenge) {
            (None, None) => return Ok(None),
            (Some(identifier), Some(challenge)) => (identifier, challenge),
            _ => return refuse(Status::AUTHENTICATION_FAILED, "half a CHAP challenge"),
        };
        let identifier = text::number(identifier).and_then(|number| u8::try_from(number).ok());
        let challenge = chap::decode(challenge).filter(|challenge| !challenge.is_empty());
        let (Some(identifier), Some(challenge)) = (identifier, challenge) else {
            return refuse(Status::AUTHENTICATION_FAILED, "malformed CHAP challenge");
        };
        let counter = Counter { identifier, challenge };
        if self.challenge.is_reflected_by(&counter) {
            return refuse(Status::AUTHENTICATION_FAILED, "this target's own CHAP challenge came back");
        }
        Ok(Some(counter))
    }

    /// Continues after [`Step::Secret`]. An unknown user takes the same way as a wrong response. `mutual` says who this
    /// side is, if it can prove it.
    pub fn verify(&mut self, secret: Option<&[u8]>, mutual: Option<Mutual<'_>>) -> Result<Step, Refusal> {
        let before = std::mem::replace(&mut self.authentication, Authentication::Open);
        let Authentication::Verifying { algorithm, response, counter, transit } = before else {
            return refuse(Status::TARGET_ERROR, "no response to verify");
        };
        if !self.challenge.verify(algorithm, secret, &response) {
            return refuse(Status::AUTHENTICATION_FAILED, "wrong CHAP user or response");
        }
        let mut answer = Vec::new();
        let Some(Counter { identifier, challenge }) = counter else {
            self.authentication = Authentication::Done;
            return self.proceed(Stage::Security, transit, answer);
        };
        let Some(mutual) = mutual else {
            return refuse(Status::AUTHENTICATION_FAILED, "mutual CHAP is not configured");
        };
        // One secret both ways would let the initiator's answers be had from the target.
        if secret == Some(mutual.secret) {
            return refuse(Status::AUTHENTICATION_FAILED, "the same CHAP secret in both directions");
        }
        text::push(&mut answer, "CHAP_N", mutual.name);
        text::push(
            &mut answer,
            "CHAP_R",
            &chap::encode(&algorithm.response(identifier, mutual.secret, &challenge)),
        );
        self.authentication = Authentication::Done;
        // The proof and the step that it allows come in one response: iPXE, which always asks for the step, takes a
        // target that goes on without a proof for a false one, and libiscsi repeats its keys if it does not go on.
        self.proceed(Stage::Security, transit, answer)
    }

    fn proceed(
        &mut self,
        stage: Stage,
        transit: Option<Stage>,
        mut answer: Vec<u8>,
    ) -> Result<Step, Refusal> {
        if !self.declared && (stage == Stage::Operational || transit == Some(Stage::Full)) {
            self.declared = true;
            text::push(&mut answer, "MaxRecvDataSegmentLength", &RECEIVE_SEGMENT.to_string());
        }
        let current = stage.bits() << 2;
        match transit {
            None => Ok(Step::Answer(current, answer)),
            Some(Stage::Full) => Ok(Step::Admit(0x80 | current | Stage::Full.bits(), answer)),
            Some(next) => {
                self.stage = Some(next);
                Ok(Step::Answer(0x80 | current | next.bits(), answer))
            }
        }
    }
}
