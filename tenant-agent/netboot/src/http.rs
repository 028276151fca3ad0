//! HTTP for firmware: `/boot/<token>`, `/loaders/<file>`, and in DHCP mode `off` plain `/boot`; GET and HEAD with
//! Content-Length.
//!
//! Whatever a token is good for, the answer is 200 and an iPXE script: firmware shows an error page to nobody and
//! gives up on it. `/boot` is for a DHCP server that BMI does not know: who asks is told from the neighbour table, by the
//! address the request comes from, and never by anything in the request; from there on it is a token like any other.
//!
//! HEAD changes nothing: UEFI HTTP boot asks for the length of a file so, and no boot is given away to it.
//! Deliberately absent: ranges, compression, keep-alive beyond a few seconds, any other path.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix_web::guard::{Any, Get, Head};
use actix_web::http::Method;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bmi_agent_api::config::{NetbootConfig, NetbootInstance, NetbootReservation};
use bmi_agent_api::event::NetbootEvent;
use bmi_types::{BootNumber, DhcpMode, InstanceId, MacAddr};
use socket2::{Domain, Socket, Type};

use crate::config::Current;
use crate::event::Events;
use crate::loaders::Loaders;
use crate::neighbour::client;
use crate::script::{self, Next, Waiting};
use crate::tokens::{Holder, Path, Refusal, Token, Tokens};

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
    pub fn issue(&self, config: &NetbootConfig, holder: Holder, now: Instant) -> Option<Token> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok()?;
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.issue(holder, Token::from_bytes(bytes), now, |answer| logged_in(config, answer))
    }

    /// The token of whoever asks from an address without one.
    fn issue_to(&self, config: &NetbootConfig, from: Ipv4Addr, now: Instant) -> Result<Token, Refusal> {
        let mac = (self.seen_at)(from).ok_or(Refusal::UnknownNic)?;
        let holder = Holder { mac, address: Some(from), transaction: 0, path: Path::Bridge };
        self.issue(config, holder, now).ok_or(Refusal::Unknown)
    }

    fn spend(
        &self,
        token: &str,
        from: Ipv4Addr,
        config: &NetbootConfig,
        now: Instant,
    ) -> Result<(Holder, Answer), Refusal> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let client = (from, (self.seen_at)(from));
        let ended = |answer: &Answer| logged_in(config, answer);
        tokens.spend(token, client, now, ended, |holder| {
            let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            decide(config, holder, &mut numbers)
        })
    }
}

/// Whether the boot an answer was for has logged in.
fn logged_in(config: &NetbootConfig, answer: &Answer) -> bool {
    answer.instance.is_some_and(|(id, boot)| {
        config.instances.iter().any(|instance| instance.id == id && boot <= instance.floor)
    })
}

fn decide(config: &NetbootConfig, holder: Holder, numbers: &mut Numbers) -> Answer {
    let address = holder.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    // Where another server gives addresses, the node's is any of the range that its target answers to.
    let is_holder = |node: &NetbootReservation| {
        let fits = node.address.map_or(config.plan.node_range.contains(address), |own| own == address);
        node.macs.contains(&holder.mac) && fits
    };
    if let Some(instance) = config.instances.iter().find(|instance| is_holder(&instance.node)) {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let boot = numbers.next(instance, config, clock);
        return Answer { text: script::boot(instance, boot), instance: Some((instance.id, boot)) };
    }
    let why = if config.waiting.iter().any(is_holder) { Waiting::Target } else { Waiting::NoInstance };
    Answer { text: script::wait(why, address, next(config)), instance: None }
}

/// Where a node that waits asks again.
const fn next(config: &NetbootConfig) -> Next {
    match config.dhcp {
        DhcpMode::Authoritative => Next::OwnDhcp,
        DhcpMode::Proxy => Next::ProxyDhcp,
        DhcpMode::Off => Next::Stable(config.plan.netboot_address),
    }
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
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
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
    app.route("/boot", read().to(boot_stable))
        .route("/boot/{token}", read().to(boot))
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
    script_answer(&request, &shared, |_, _, _| Ok(Token::from_text(&token)))
}

async fn boot_stable(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    script_answer(&request, &shared, |config, from, now| match config.dhcp {
        DhcpMode::Off => shared.boots.issue_to(config, from, now),
        DhcpMode::Authoritative | DhcpMode::Proxy => Err(Refusal::Unknown),
    })
}

fn script_answer(
    request: &HttpRequest,
    shared: &Shared,
    token: impl FnOnce(&NetbootConfig, Ipv4Addr, Instant) -> Result<Token, Refusal>,
) -> HttpResponse {
    let (from, config, now) = (peer(request), shared.current.get(), Instant::now());
    let mut answer = HttpResponse::Ok();
    answer.content_type("text/plain").insert_header(("Cache-Control", "no-store"));
    if request.method() == Method::HEAD {
        return answer.finish();
    }
    let spent =
        token(&config, from, now).and_then(|token| shared.boots.spend(token.expose(), from, &config, now));
    answer.body(match spent {
        Ok((holder, answer)) => {
            let (instance, boot) = answer.instance.unzip();
            let address = Some(from);
            shared.events.say(NetbootEvent::Script { mac: holder.mac, address, instance, boot });
            answer.text
        }
        Err(refusal) => {
            let mac = (shared.boots.seen_at)(from);
            shared.events.say(NetbootEvent::Refused { address: from, mac, reason: refusal.to_string() });
            script::wait(Waiting::Refused, from, next(&config))
        }
    })
}

async fn loader(request: HttpRequest, file: web::Path<String>, shared: web::Data<Shared>) -> HttpResponse {
    let Some((name, bytes)) = shared.loaders.get(&file) else { return HttpResponse::NotFound().finish() };
    if request.method() == Method::GET {
        let from = peer(&request);
        shared.events.say(NetbootEvent::Loader {
            address: from,
            mac: client(&shared.current.get(), from),
            file: name.to_owned(),
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            protocol: "http".to_owned(),
        });
    }
    // Firmware that looks at the type and not at the name takes only this one for a program (UEFI specification 24.7.2).
    let kind = if name.ends_with(".efi") { "application/efi" } else { "application/octet-stream" };
    HttpResponse::Ok().content_type(kind).body(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use actix_web::body::MessageBody;
    use actix_web::test as client;
    use bmi_types::{BootUser, boot_secret};

    use super::*;
    use crate::dhcp::testing::{config, instance, loaders, nic, node_address, waiting_nic};

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
        shared_with(config(), events)
    }

    fn shared_with(config: NetbootConfig, events: Events) -> (web::Data<Shared>, Arc<Boots>) {
        let boots = Arc::new(Boots::new(seen_at));
        let data =
            Shared { current: Current::new(config), boots: Arc::clone(&boots), loaders: loaders(), events };
        (web::Data::new(data), boots)
    }

    fn waiting_address() -> Ipv4Addr {
        config().waiting[0].address.unwrap()
    }

    async fn get(shared: &web::Data<Shared>, path: &str, from: Ipv4Addr) -> (u16, String) {
        let app = client::init_service(App::new().app_data(shared.clone()).configure(routes)).await;
        let request = client::TestRequest::get().uri(path).peer_addr((from, 1024).into()).to_request();
        let answer = client::call_service(&app, request).await;
        let status = answer.status().as_u16();
        (status, String::from_utf8(client::read_body(answer).await.to_vec()).unwrap())
    }

    fn issue(boots: &Boots, mac: MacAddr, address: Ipv4Addr) -> String {
        let holder = Holder { mac, address: Some(address), transaction: 7, path: Path::Bridge };
        format!("/boot/{}", boots.issue(&config(), holder, Instant::now()).unwrap().expose())
    }

    #[actix_web::test]
    async fn a_ready_node_gets_its_secret_and_a_repeat_gets_the_same() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&said);
        let (shared, boots) = shared(Events::to(move |event| log.lock().unwrap().push(event)));
        let node = node_address();
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
        let path = issue(&boots, nic(), node_address());
        for (path, from) in [
            (path.as_str(), waiting_address()),
            ("/boot/00", node_address()),
            ("/boot/ffffffffffffffffffffffffffffffff", node_address()),
        ] {
            let (status, text) = get(&shared, path, from).await;
            assert_eq!(status, 200, "firmware never sees an error page");
            assert_eq!(text, script::wait(Waiting::Refused, from, Next::OwnDhcp));
        }
        let said = said.lock().unwrap();
        assert_eq!(said.len(), 3);
        assert!(said.iter().all(|event| matches!(event, NetbootEvent::Refused { .. })));
    }

    #[actix_web::test]
    async fn who_is_not_ready_is_told_what_it_waits_for() {
        let (shared, boots) = shared(Events::to(|_| ()));
        let waiting = waiting_address();
        let path = issue(&boots, waiting_nic(), waiting);
        assert_eq!(
            get(&shared, &path, waiting).await.1,
            script::wait(Waiting::Target, waiting, Next::OwnDhcp)
        );
        let stranger = Ipv4Addr::new(10, 20, 0, 200);
        let path = issue(&boots, stranger_nic(), stranger);
        assert_eq!(
            get(&shared, &path, stranger).await.1,
            script::wait(Waiting::NoInstance, stranger, Next::OwnDhcp)
        );
    }

    #[actix_web::test]
    async fn a_loader_has_its_length() {
        let (shared, _) = shared(Events::to(|_| ()));
        let app = client::init_service(App::new().app_data(shared.clone()).configure(routes)).await;
        let files = ["/loaders/undionly.kpxe", "/loaders/snponly.efi"];
        for (path, method) in files.into_iter().flat_map(|path| [(path, Method::GET), (path, Method::HEAD)]) {
            let request = client::TestRequest::with_uri(path).method(method).to_request();
            let answer = client::call_service(&app, request).await;
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.response().body().size(), actix_web::body::BodySize::Sized(2));
            let kind = answer.headers().get("content-type").unwrap().to_str().unwrap().to_owned();
            assert_eq!(
                kind,
                if path.ends_with(".efi") { "application/efi" } else { "application/octet-stream" }
            );
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

    #[actix_web::test]
    async fn s5_a_token_is_refused_once_its_boot_has_logged_in() {
        let (shared, boots) = shared(Events::to(|_| ()));
        let node = node_address();
        let path = issue(&boots, nic(), node);
        let (_, text) = get(&shared, &path, node).await;
        assert!(text.contains("set password "));
        let mut after = config();
        after.instances[0].floor = BootNumber(u64::MAX);
        let after = web::Data::new(Shared {
            current: Current::new(after),
            boots,
            loaders: loaders(),
            events: Events::to(|_| ()),
        });
        let (status, text) = get(&after, &path, node).await;
        assert_eq!((status, text), (200, script::wait(Waiting::Refused, node, Next::OwnDhcp)));
    }

    fn off() -> NetbootConfig {
        NetbootConfig { dhcp: DhcpMode::Off, ..unaddressed() }
    }

    /// Another server gives the addresses.
    fn unaddressed() -> NetbootConfig {
        let mut config = config();
        config.instances[0].node.address = None;
        config.waiting[0].address = None;
        config
    }

    #[actix_web::test]
    async fn b6_without_dhcp_who_asks_is_told_by_the_neighbour_table() {
        let (shared, _) = shared_with(off(), Events::to(|_| ()));
        let (node, waiting, stranger) = (node_address(), waiting_address(), Ipv4Addr::new(10, 20, 0, 200));
        let stable = Next::Stable(config().plan.netboot_address);
        let (_, text) = get(&shared, "/boot", node).await;
        assert!(text.contains("set password "), "{text}");
        assert_eq!(get(&shared, "/boot", node).await.1, text, "a repeat is the same boot");
        assert_eq!(get(&shared, "/boot", waiting).await.1, script::wait(Waiting::Target, waiting, stable));
        assert_eq!(
            get(&shared, "/boot", stranger).await.1,
            script::wait(Waiting::NoInstance, stranger, stable)
        );
        let unseen = Ipv4Addr::new(10, 20, 0, 90);
        assert_eq!(get(&shared, "/boot", unseen).await.1, script::wait(Waiting::Refused, unseen, stable));
    }

    #[actix_web::test]
    async fn s5_what_a_client_says_of_itself_gets_it_nothing() {
        let (shared, _) = shared_with(off(), Events::to(|_| ()));
        let stranger = Ipv4Addr::new(10, 20, 0, 200);
        let app = client::init_service(App::new().app_data(shared.clone()).configure(routes)).await;
        for path in [format!("/boot?mac={}", nic()), format!("/boot?ip={}", node_address())] {
            let request = client::TestRequest::get()
                .uri(&path)
                .insert_header(("X-Forwarded-For", node_address().to_string()))
                .insert_header(("Forwarded", format!("for={}", node_address())))
                .peer_addr((stranger, 1024).into());
            let body = client::call_and_read_body(&app, request.to_request()).await;
            assert!(!String::from_utf8(body.to_vec()).unwrap().contains("password"), "{path}");
        }
    }

    #[actix_web::test]
    async fn the_stable_url_is_for_networks_without_our_dhcp() {
        for dhcp in [DhcpMode::Authoritative, DhcpMode::Proxy] {
            let (shared, _) = shared_with(NetbootConfig { dhcp, ..config() }, Events::to(|_| ()));
            let (status, text) = get(&shared, "/boot", node_address()).await;
            assert_eq!(status, 200);
            assert!(text.contains("token is spent"), "{dhcp}: {text}");
        }
    }

    #[actix_web::test]
    async fn a_head_request_does_not_begin_a_boot() {
        let said = Arc::new(Mutex::new(0));
        let count = Arc::clone(&said);
        let (shared, _) = shared_with(off(), Events::to(move |_| *count.lock().unwrap() += 1));
        let app = client::init_service(App::new().app_data(shared.clone()).configure(routes)).await;
        let head = client::TestRequest::with_uri("/boot").method(Method::HEAD);
        let answer =
            client::call_service(&app, head.peer_addr((node_address(), 1024).into()).to_request()).await;
        assert_eq!((answer.status().as_u16(), *said.lock().unwrap()), (200, 0));
    }

    #[actix_web::test]
    async fn b6_an_address_outside_the_node_range_boots_nothing() {
        let config = NetbootConfig { dhcp: DhcpMode::Proxy, ..unaddressed() };
        let token = |address| {
            let holder = Holder { mac: nic(), address: Some(address), transaction: 7, path: Path::Bridge };
            decide(&config, holder, &mut Numbers::default()).instance
        };
        assert!(token(Ipv4Addr::new(10, 20, 0, 99)).is_some(), "any address of the node range");
        assert!(token(Ipv4Addr::new(10, 20, 0, 200)).is_none(), "its target would not answer there");
    }
}
