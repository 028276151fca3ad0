//! HTTP for firmware: `/boot/<token>` and `/loaders/<file>`, GET and HEAD with Content-Length.
//!
//! Whatever a token is good for, the answer is 200 and an iPXE script: firmware shows an error page to nobody and
//! gives up on it. Deliberately absent: ranges, compression, keep-alive beyond a few seconds, any other path.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix_web::guard::{Any, Get, Head};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bmi_agent_api::config::{NetbootConfig, NetbootInstance};
use bmi_agent_api::event::NetbootEvent;
use bmi_types::{BootNumber, InstanceId, MacAddr};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Current;
use crate::event::Events;
use crate::loaders::Loaders;
use crate::neighbour::neighbour;
use crate::script::{self, Waiting};
use crate::tokens::{Holder, Refusal, Token, Tokens};

/// The port of plain HTTP: it does not appear in the URL, and firmware of every age knows it.
const PORT: u16 = 80;

/// Connections waiting to be accepted: a rack that is switched on at once.
const BACKLOG: i32 = 256;

/// Connections at once: each node needs one, for a moment.
const CONNECTIONS_MAX: usize = 1024;

/// How long a client may take to send its request: slow firmware needs milliseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer to a token, kept for repeats.
#[derive(Clone)]
struct Answer {
    text: String,
    instance: Option<(InstanceId, BootNumber)>,
}

#[derive(Default)]
struct Numbers(HashMap<InstanceId, u64>);

impl Numbers {
    /// The seconds since 1970, or one more than the last number or than the target's floor, whichever is largest: the
    /// clock may have been set back since. Bounded by the instances.
    fn next(&mut self, instance: &NetbootInstance, config: &NetbootConfig, clock: u64) -> BootNumber {
        self.0.retain(|id, _| config.instances.iter().any(|instance| instance.id == *id));
        let last = self.0.entry(instance.id).or_default();
        *last = clock.max(last.saturating_add(1)).max(instance.floor.0.saturating_add(1));
        BootNumber(*last)
    }
}

/// Which boots are going on: tokens, their answers, and boot numbers.
pub struct Boots {
    seen_at: fn(Ipv4Addr) -> Option<MacAddr>,
    tokens: Mutex<Tokens<Answer>>,
    numbers: Mutex<Numbers>,
}

impl Boots {
    /// None yet. `seen_at` tells at which NIC an address answers.
    #[must_use]
    pub fn new(seen_at: fn(Ipv4Addr) -> Option<MacAddr>) -> Self {
        Self { seen_at, tokens: Mutex::new(Tokens::new()), numbers: Mutex::new(Numbers::default()) }
    }

    /// The token for a DHCP transaction. Nothing when there is no randomness or no room: the client asks again.
    pub fn issue(&self, holder: Holder, now: Instant) -> Option<Token> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok()?;
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.issue(holder, Token::from_bytes(bytes), now)
    }

    fn spend(
        &self,
        token: &str,
        from: Ipv4Addr,
        config: &NetbootConfig,
        now: Instant,
    ) -> Result<(Holder, Answer), Refusal> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.spend(token, from, (self.seen_at)(from), now, |holder| {
            let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            decide(config, holder, &mut numbers)
        })
    }
}

fn decide(config: &NetbootConfig, holder: Holder, numbers: &mut Numbers) -> Answer {
    let is_holder = |node: &bmi_agent_api::config::NetbootReservation| {
        node.macs.contains(&holder.mac) && node.address == holder.address
    };
    if let Some(instance) = config.instances.iter().find(|instance| is_holder(&instance.node)) {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let boot = numbers.next(instance, config, clock);
        return Answer { text: script::boot(instance, boot), instance: Some((instance.id, boot)) };
    }
    let why = if config.waiting.iter().any(is_holder) { Waiting::Target } else { Waiting::NoInstance };
    Answer { text: script::wait(why, holder.address), instance: None }
}

/// What the handlers share.
struct Shared {
    current: Current,
    boots: Arc<Boots>,
    loaders: Loaders,
    events: Events,
}

/// A listening socket, which may be bound before its address exists.
///
/// # Errors
/// When the kernel refuses.
pub fn bind(own: Ipv4Addr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_freebind_v4(true)?;
    socket.bind(&SocketAddrV4::new(own, PORT).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves until the process ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    current: Current,
    boots: Arc<Boots>,
    loaders: Loaders,
    events: Events,
) -> std::io::Result<()> {
    let shared = web::Data::new(Shared { current, boots, loaders, events });
    HttpServer::new(move || App::new().app_data(shared.clone()).configure(routes))
        .workers(1)
        .max_connections(CONNECTIONS_MAX)
        .client_request_timeout(REQUEST_TIMEOUT)
        .disable_signals()
        .listen(listener)?
        .run()
        .await
}

fn routes(app: &mut web::ServiceConfig) {
    let read = || web::route().guard(Any(Get()).or(Head()));
    app.route("/boot/{token}", read().to(boot))
        .route("/loaders/{file}", read().to(loader))
        .default_service(web::to(|| async { HttpResponse::NotFound().finish() }));
}

fn peer(request: &HttpRequest) -> Ipv4Addr {
    match request.peer_addr().map(|peer| peer.ip()) {
        Some(IpAddr::V4(address)) => address,
        _ => Ipv4Addr::UNSPECIFIED,
    }
}

async fn boot(request: HttpRequest, token: web::Path<String>, shared: web::Data<Shared>) -> HttpResponse {
    let from = peer(&request);
    let text = match shared.boots.spend(&token, from, &shared.current.get(), Instant::now()) {
        Ok((holder, answer)) => {
            let (instance, boot) = answer.instance.unzip();
            shared.events.say(NetbootEvent::Script { mac: holder.mac, instance, boot });
            answer.text
        }
        Err(refusal) => {
            shared.events.say(NetbootEvent::Refused { address: from, reason: refusal.to_string() });
            script::wait(Waiting::Refused, from)
        }
    };
    HttpResponse::Ok().content_type("text/plain").insert_header(("Cache-Control", "no-store")).body(text)
}

async fn loader(request: HttpRequest, file: web::Path<String>, shared: web::Data<Shared>) -> HttpResponse {
    let Some((name, bytes)) = shared.loaders.get(&file) else { return HttpResponse::NotFound().finish() };
    if request.method() == actix_web::http::Method::GET {
        let from = peer(&request);
        shared.events.say(NetbootEvent::Loader {
            address: from,
            mac: neighbour(from),
            file: name.to_owned(),
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            protocol: "http".to_owned(),
        });
    }
    HttpResponse::Ok().content_type("application/octet-stream").body(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use actix_web::body::MessageBody;
    use actix_web::test as client;
    use bmi_types::{BootUser, boot_secret};

    use super::*;
    use crate::dhcp::testing::{config, instance, nic, waiting_nic};

    /// The NIC of a node that has none in the configuration.
    fn stranger_nic() -> MacAddr {
        "02:00:00:00:00:77".parse().unwrap()
    }

    fn seen_at(address: Ipv4Addr) -> Option<MacAddr> {
        match address.octets()[3] {
            70 => Some(nic()),
            71 => Some(waiting_nic()),
            200 => Some(stranger_nic()),
            _ => None,
        }
    }

    fn shared(events: Events) -> (web::Data<Shared>, Arc<Boots>) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(crate::loaders::BIOS), b"bios").unwrap();
        std::fs::write(directory.path().join(crate::loaders::UEFI), b"MZ").unwrap();
        let loaders = Loaders::read(directory.path()).unwrap();
        let boots = Arc::new(Boots::new(seen_at));
        let data = Shared { current: Current::new(config()), boots: Arc::clone(&boots), loaders, events };
        (web::Data::new(data), boots)
    }

    async fn get(shared: &web::Data<Shared>, path: &str, from: Ipv4Addr) -> (u16, String) {
        let app = client::init_service(App::new().app_data(shared.clone()).configure(routes)).await;
        let request = client::TestRequest::get().uri(path).peer_addr((from, 1024).into()).to_request();
        let answer = client::call_service(&app, request).await;
        let status = answer.status().as_u16();
        (status, String::from_utf8(client::read_body(answer).await.to_vec()).unwrap())
    }

    fn issue(boots: &Boots, mac: MacAddr, address: Ipv4Addr) -> String {
        let holder = Holder { mac, address, transaction: 7 };
        format!("/boot/{}", boots.issue(holder, Instant::now()).unwrap().expose())
    }

    #[actix_web::test]
    async fn a_ready_node_gets_its_secret_and_a_repeat_gets_the_same() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&said);
        let (shared, boots) = shared(Events::to(move |event| log.lock().unwrap().push(event)));
        let node = instance().node.address;
        let path = issue(&boots, nic(), node);
        let (status, text) = get(&shared, &path, node).await;
        assert_eq!(status, 200);
        let NetbootEvent::Script { boot: Some(boot), .. } = said.lock().unwrap()[0].clone() else { panic!() };
        let secret = boot_secret(&instance().boot_key, BootUser { instance: instance().id, boot });
        assert!(text.contains(secret.expose()));
        assert_eq!(get(&shared, &path, node).await, (200, text), "firmware repeats");
        let path = issue(&boots, nic(), node);
        assert!(path.starts_with("/boot/"));
    }

    #[actix_web::test]
    async fn misuse_is_answered_by_a_script_that_waits() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&said);
        let (shared, boots) = shared(Events::to(move |event| log.lock().unwrap().push(event)));
        let path = issue(&boots, nic(), instance().node.address);
        for (path, from) in [
            (path.as_str(), config().waiting[0].address),
            ("/boot/00", instance().node.address),
            ("/boot/ffffffffffffffffffffffffffffffff", instance().node.address),
        ] {
            let (status, text) = get(&shared, path, from).await;
            assert_eq!(status, 200, "firmware never sees an error page");
            assert_eq!(text, script::wait(Waiting::Refused, from));
        }
        let said = said.lock().unwrap();
        assert_eq!(said.len(), 3);
        assert!(said.iter().all(|event| matches!(event, NetbootEvent::Refused { .. })));
    }

    #[actix_web::test]
    async fn who_is_not_ready_is_told_what_it_waits_for() {
        let (shared, boots) = shared(Events::to(|_| ()));
        let waiting = config().waiting[0].address;
        let path = issue(&boots, waiting_nic(), waiting);
        assert_eq!(get(&shared, &path, waiting).await.1, script::wait(Waiting::Target, waiting));
        let stranger = Ipv4Addr::new(10, 20, 0, 200);
        let path = issue(&boots, stranger_nic(), stranger);
        assert_eq!(get(&shared, &path, stranger).await.1, script::wait(Waiting::NoInstance, stranger));
    }

    #[actix_web::test]
    async fn a_loader_has_its_length() {
        let (shared, _) = shared(Events::to(|_| ()));
        let app = client::init_service(App::new().app_data(shared.clone()).configure(routes)).await;
        for method in [actix_web::http::Method::GET, actix_web::http::Method::HEAD] {
            let request = client::TestRequest::with_uri("/loaders/undionly.kpxe").method(method).to_request();
            let answer = client::call_service(&app, request).await;
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.response().body().size(), actix_web::body::BodySize::Sized(4));
        }
        let (status, body) = get(&shared, "/loaders/%2e%2e%2fsecret", Ipv4Addr::LOCALHOST).await;
        assert_eq!((status, body.as_str()), (404, ""));
    }

    #[test]
    fn boot_numbers_only_grow() {
        let mut numbers = Numbers::default();
        let mut next = |clock| numbers.next(&instance(), &config(), clock).0;
        assert_eq!([next(100), next(100), next(50), next(200)], [100, 101, 102, 200]);
    }
    #[test]
    fn boot_numbers_are_above_what_logged_in_before_the_clock_was_set_back() {
        let mut numbers = Numbers::default();
        let mut floored = instance();
        floored.floor = BootNumber(500);
        let mut next = |clock| numbers.next(&floored, &config(), clock).0;
        assert_eq!([next(100), next(101), next(600)], [501, 502, 600]);
    }
}
