//! The server loop: poll, take what arrived, do the disk work, send, decide about sessions.
//!
//! Invariant: a peer is only touched here, in one thread; what it asks about others (sessions, resets) is collected
//! while it is served and done afterwards.

mod footprint;
#[cfg(test)]
mod gate;
mod peer;
mod poller;
mod pool;
mod remote;
mod resets;
mod send;
mod shared;
#[cfg(test)]
mod stalled;
mod statistics;
mod takeover;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmi_agent_api::event::TargetEvent;
use bmi_iscsi::{LoginStatus, TargetConfig};
use nix::sys::signalfd::SignalFd;

use crate::arguments::{Arguments, Sessions};
use crate::credentials::Credentials;
use crate::disk::Store;
use crate::events::Events;
use crate::listener;
use peer::{Ended, Holding, Peer};
use poller::{Interest, Poller};
use pool::Pool;
use resets::Quiescing;
use shared::{Request, Shared};
use takeover::{Decision, Held};

/// Logins in progress. One more ends the oldest, so that a newcomer always gets its chance.
const LOGINS_MAX: usize = 8;

/// Sessions with `--sessions many`.
const SESSIONS_MAX: usize = 8;

/// How long the holder of the one session has to give a sign of life.
const PROBE: Duration = Duration::from_secs(1);

/// Tokens of the poller: signals, finished disk work, then listeners, stores behind sockets, and peers by their
/// number.
const SIGNALS: u64 = 0;
const DISK: u64 = 1;
const LISTENERS: u64 = 2;
const REMOTES: u64 = 1 << 31;
const PEERS: u64 = 1 << 32;

/// A login that waits for the holder of the session to prove dead or alive.
struct Contender {
    peer: u64,
    holder: u64,
    deadline: Instant,
}

/// The target.
pub struct Server {
    shared: Shared,
    poller: Poller,
    sessions: Sessions,
    listeners: Vec<TcpListener>,
    peers: Vec<Peer>,
    contender: Option<Contender>,
    /// Logins that wait until the writes of sessions that ended are done.
    waiting: Vec<u64>,
    /// Resets and preemptions that are not answered yet.
    quiescing: Vec<Quiescing>,
    next_peer: u64,
    next_tsih: u16,
}

impl Server {
    pub fn new(
        arguments: &Arguments,
        stores: Vec<Store>,
        credentials: Credentials,
        listeners: Vec<TcpListener>,
        events: Events,
    ) -> std::io::Result<Self> {
        let config = TargetConfig {
            name: arguments.target.to_string(),
            initiators: arguments.initiator.iter().map(ToString::to_string).collect(),
            chap: credentials.required(),
            units: stores.iter().map(|store| store.unit().clone()).collect(),
        };
        let pool = Pool::new()?;
        let poller = Poller::new()?;
        poller.add(pool.bell(), DISK, Interest::INPUT)?;
        for (listener, token) in listeners.iter().zip(LISTENERS..) {
            poller.add(listener, token, Interest::INPUT)?;
        }
        Ok(Self {
            poller,
            shared: Shared::new(Arc::new(config), stores, credentials, events, pool, arguments.sessions),
            sessions: arguments.sessions,
            listeners,
            peers: Vec::new(),
            contender: None,
            waiting: Vec::new(),
            quiescing: Vec::new(),
            next_peer: 0,
            next_tsih: 0,
        })
    }

    /// Serves until SIGTERM or SIGINT; then flushes.
    pub fn run(mut self, signals: &SignalFd) {
        if let Err(error) = self.poller.add(signals, SIGNALS, Interest::INPUT) {
            tracing::error!(%error, "cannot wait for signals");
            return;
        }
        loop {
            let now = Instant::now();
            // A moment more, so that what is waited for is over then.
            let timeout = self
                .deadline(now)
                .map(|deadline| deadline.saturating_duration_since(now) + Duration::from_millis(1));
            if let Err(error) = self.poller.wait(timeout) {
                tracing::error!(%error, "cannot wait for connections");
                break;
            }
            if self.poller.ready().any(|token| token == SIGNALS) {
                break;
            }
            self.serve(Instant::now());
        }
        for peer in std::mem::take(&mut self.peers) {
            self.farewell(peer, Ended::Disconnected);
        }
        self.shared.end();
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let peers = self.peers.iter().filter_map(Peer::deadline).min();
        let contender = self.contender.as_ref().map(|contender| contender.deadline);
        let traffic = self.shared.traffic_deadline(now);
        let remotes = self.shared.remotes.iter().filter_map(remote::Remote::deadline).min();
        [peers, contender, remotes, traffic].into_iter().flatten().min()
    }

    fn serve(&mut self, now: Instant) {
        if self.shared.process_remotes(now) || self.poller.ready().any(|token| token == DISK) {
            self.disk_done(now);
        }
        for (lun, stalled) in self.shared.stalled(now) {
            self.peers.iter_mut().for_each(|peer| peer.connection.set_stalled(lun, stalled));
        }
        for id in self.poller.ready().filter_map(|token| token.checked_sub(PEERS)) {
            if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == id) {
                peer.receive(&mut self.shared);
            }
        }
        for peer in &mut self.peers {
            peer.connection_timeout(now);
            peer.drive(&mut self.shared, now);
        }
        self.settle(now);
        for at in 0..self.listeners.len() {
            if self.poller.ready().any(|token| token == LISTENERS + at as u64) {
                self.accept(at, now);
            }
        }
        // What was asked of stores behind sockets goes out; what they have answered already needs no waiting.
        while self.shared.process_remotes(now) {
            self.disk_done(now);
            self.settle(now);
        }
        self.shared.update_interests(&self.poller, REMOTES);
        for peer in &mut self.peers {
            peer.update_interest(&self.poller, PEERS);
            peer.report(&self.shared, now, false);
        }
        self.shared.report_traffic(now);
    }

    /// Gives back work that had to wait. What belongs to a session that ended is answered to nobody.
    fn disk_done(&mut self, now: Instant) {
        for done in self.shared.done() {
            if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == done.peer) {
                peer.complete(done);
            }
        }
        if !self.others_write(now) {
            for id in std::mem::take(&mut self.waiting) {
                self.admit(id, now);
            }
        }
    }

    /// Whether work of a session that ended is not done yet.
    fn others_write(&self, now: Instant) -> bool {
        let living = self.peers.iter().filter(|peer| peer.ended(now).is_none());
        let living: Vec<u64> = living.map(|peer| peer.id).collect();
        self.shared.pool.has_work_of_others_than(&living)
            || self.shared.remotes.iter().any(|remote| remote.has_work_of_others_than(&living))
    }

    /// Does what peers asked for until nothing is left to do.
    fn settle(&mut self, now: Instant) {
        loop {
            let requests = std::mem::take(&mut self.shared.requests);
            let idle = requests.is_empty();
            for request in requests {
                match request {
                    Request::Admit(peer) => self.admit(peer, now),
                    Request::Reset { by, lun, task } => self.reset(by, lun, task),
                    Request::Preempted { by, lun, whose, task } => self.preempt(by, lun, &whose, task),
                }
            }
            let answered = self.end_quiescing();
            self.decide_contender(now);
            let gone = self.remove_ended(now);
            for peer in &mut self.peers {
                peer.drive(&mut self.shared, now);
            }
            if idle && !answered && !gone && self.shared.requests.is_empty() {
                return;
            }
        }
    }

    fn remove_ended(&mut self, now: Instant) -> bool {
        let mut gone = false;
        while let Some(at) = self.peers.iter().position(|peer| peer.ended(now).is_some()) {
            let peer = self.peers.swap_remove(at);
            let why = peer.ended(now).unwrap_or(Ended::Disconnected);
            self.farewell(peer, why);
            gone = true;
        }
        gone
    }

    /// Closes a peer. Its writes are done, never begun, or waited for before another session begins.
    fn farewell(&mut self, mut peer: Peer, why: Ended) {
        peer.report(&self.shared, Instant::now(), true);
        if let Some(holding) = &peer.holding
            && !holding.discovery
        {
            tracing::info!(peer = %peer.address, reason = why.as_str(), "session ended");
            self.shared.say(&TargetEvent::Logout { peer: peer.address, reason: why.as_str().to_owned() });
        }
        if self.contender.as_ref().is_some_and(|contender| contender.peer == peer.id) {
            self.contender = None;
        }
    }

    fn accept(&mut self, at: usize, now: Instant) {
        let Some(listener) = self.listeners.get(at) else { return };
        let (stream, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    tracing::warn!(%error, "cannot accept a connection");
                }
                return;
            }
        };
        if let Err(error) = listener::prepare(&stream) {
            tracing::warn!(%error, peer = %address, "cannot set up a connection");
            return;
        }
        // A login that waits for a decision has proved who it is.
        let logins = self.peers.iter().filter(|peer| peer.holding.is_none());
        if logins.clone().count() >= LOGINS_MAX {
            let unproved = logins.filter(|peer| peer.candidate.is_none());
            match unproved.map(|peer| peer.id).min() {
                Some(oldest) => self.end(oldest, Ended::Disconnected),
                None => return,
            }
        }
        self.next_peer += 1;
        match Peer::new(self.next_peer, stream, address, &self.shared, now) {
            Ok(peer) => match self.poller.add(&peer.stream, PEERS + peer.id, Interest::INPUT) {
                Ok(()) => self.peers.push(peer),
                Err(error) => tracing::error!(%error, peer = %address, "cannot wait for a connection"),
            },
            Err(error) => tracing::error!(%error, "no randomness"),
        }
    }

    fn end(&mut self, id: u64, why: Ended) {
        if let Some(at) = self.peers.iter().position(|peer| peer.id == id) {
            let peer = self.peers.swap_remove(at);
            self.farewell(peer, why);
        }
    }

    fn peer(&mut self, id: u64) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.id == id)
    }

    /// A login has come to its end: may it have a session?
    fn admit(&mut self, id: u64, now: Instant) {
        let held: Vec<Held> = self.peers.iter().filter_map(Peer::held).collect();
        let (sessions, contended) = (self.sessions, self.contender.is_some());
        if !self.may_still_boot(id) {
            return;
        }
        let Some(peer) = self.peer(id) else { return };
        let Some(candidate) = peer.candidate.clone() else { return };
        match takeover::decide(sessions, SESSIONS_MAX, &candidate, &held) {
            Decision::Admit { replaces } => {
                if let Some(old) = replaces {
                    self.end(old, Ended::Reinstated);
                }
                self.begin_session(id, now);
            }
            Decision::Refuse(status, reason) => peer.refuse(status, reason),
            Decision::Probe { .. } if contended => {
                peer.refuse(LoginStatus::OUT_OF_RESOURCES, "another login is waiting");
            }
            Decision::Probe { holder } => {
                self.contender = Some(Contender { peer: id, holder, deadline: now + PROBE });
                if let Some(holder) = self.peer(holder) {
                    holder.probe();
                }
            }
        }
    }

    /// The holder is gone, has answered, or has had its time.
    fn decide_contender(&mut self, now: Instant) {
        let Some(Contender { peer: id, holder, deadline }) = &self.contender else { return };
        let (id, holder, expired) = (*id, *holder, *deadline <= now);
        match self.peers.iter().find(|peer| peer.id == holder).map(|peer| (peer.heard, peer.address)) {
            Some((true, address)) => {
                self.contender = None;
                let Some(peer) = self.peer(id) else { return };
                let newcomer = peer.address;
                // Not "service unavailable": the one session there is, is taken. Initiators may retry (class 03).
                peer.refuse(LoginStatus::OUT_OF_RESOURCES, "the session is held by a living node");
                tracing::warn!(peer = %newcomer, holder = %address, "a second login beside a living session");
                self.shared.say(&TargetEvent::SessionConflict { peer: newcomer, holder: address });
            }
            Some((false, _)) if !expired => {}
            Some((false, _)) => {
                self.contender = None;
                if self.may_still_boot(id) {
                    self.end(holder, Ended::Fenced);
                    self.begin_session(id, now);
                }
            }
            None => {
                self.contender = None;
                self.admit(id, now);
            }
        }
    }

    /// The floor may have risen while a login waited. Asked before anybody is put out for it.
    fn may_still_boot(&mut self, id: u64) -> bool {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == id) else { return false };
        let Some(candidate) = &peer.candidate else { return false };
        if self.shared.credentials.boot(candidate.user.as_deref()).is_ok() {
            return true;
        }
        peer.refuse(LoginStatus::AUTHENTICATION_FAILED, "a later boot has logged in");
        false
    }

    /// Call only after [`Self::may_still_boot`]. No write of a session that ended may land after the first answer of
    /// this one, so it begins when they are done; then it is decided about again.
    fn begin_session(&mut self, id: u64, now: Instant) {
        if self.others_write(now) {
            self.waiting.push(id);
            return;
        }
        let tsih = self.fresh_tsih();
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == id) else { return };
        let Some(candidate) = peer.candidate.take() else { return };
        let boot = self.shared.credentials.boot(candidate.user.as_deref()).unwrap_or(None);
        peer.connection.admit(Ok(tsih));
        if !candidate.discovery {
            if let Some(boot) = boot {
                self.shared.credentials.raise_floor(boot);
            }
            tracing::info!(peer = %peer.address, initiator = %candidate.initiator, "session begun");
            self.shared.say(&TargetEvent::Login {
                initiator: candidate.initiator.clone(),
                peer: peer.address,
                boot,
            });
        }
        peer.holding = Some(Holding::new(&candidate, tsih, now));
    }

    fn fresh_tsih(&mut self) -> u16 {
        loop {
            self.next_tsih = self.next_tsih.wrapping_add(1);
            let tsih = self.next_tsih;
            let taken =
                self.peers.iter().any(|peer| peer.holding.as_ref().is_some_and(|held| held.tsih == tsih));
            if tsih != 0 && !taken {
                return tsih;
            }
        }
    }
}
