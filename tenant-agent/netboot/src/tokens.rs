//! One-time tokens for scripts. Pure: time and randomness are parameters.
//!
//! A token is issued in a DHCP answer to iPXE and bound to that transaction, NIC and address. Its first use decides
//! the answer, boot number included; the same client gets the same answer again for a short time, because firmware
//! repeats requests whose answer it lost. Any other use is refused.
//!
//! A repeat is ended by time, or when the configuration says that the boot has logged in. That comes a moment after the
//! login; what ends the secret itself is the target, which refuses a boot number below the highest that logged in.
//!
//! Where another server gives the address, it is not known when the token is issued: the first use binds it. The NIC is
//! known and checked all the same.
//!
//! A packet with somebody else's NIC in it must not take that NIC's token away. So a NIC has a few, each of its own
//! transaction. The bridge's rules keep such packets out, for the NICs of instances; this holds without them.
//!
//! Invariants: at most [`PER_NIC_MAX`] tokens per NIC, the newest; at most [`TOKENS_MAX`] in all.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bmi_types::MacAddr;

/// How long an unused token is good for: iPXE asks within seconds of its DHCP answer.
const UNUSED: Duration = Duration::from_secs(120);

/// How long the first user may repeat its request.
const REPEAT: Duration = Duration::from_secs(60);

/// The most tokens held: more than the addresses of the largest network that can all be booting at once.
const TOKENS_MAX: usize = 16_384;

/// The most tokens held for one NIC: its transaction, what firmware began and gave up before, and some to spare.
const PER_NIC_MAX: usize = 4;

/// Random bytes in a token.
const TOKEN_BYTES: usize = 16;

/// A token as it stands in a URL: 32 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(String);

impl Token {
    /// A token from random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; TOKEN_BYTES]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What somebody says is a token.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The token's text, for the URL.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Token(…)")
    }
}

/// How a client's packets come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Over the bridge: the NIC of an address is seen.
    Bridge,
    /// Through a relay: every address behind it is seen at the router's NIC.
    Relay,
}

/// Who a token was given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The NIC.
    pub mac: MacAddr,
    /// The address given with it. Nothing when another server gives it: then the first use binds it.
    pub address: Option<Ipv4Addr>,
    /// The DHCP transaction.
    pub transaction: u32,
    /// How it reaches us.
    pub path: Path,
}

struct Entry<Answer> {
    holder: Holder,
    /// The holder's address, or the one its first use came from.
    bound: Option<Ipv4Addr>,
    /// Counts up with each token issued.
    order: u64,
    expires: Instant,
    answer: Option<Answer>,
}

/// Why a token was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Never issued, expired, or replaced by a newer one.
    #[error("the token is unknown, spent or replaced")]
    Unknown,
    /// From another address than it was issued for.
    #[error("the token was given to another address")]
    ForeignAddress,
    /// The boot it was for has logged in: its secret is spent.
    #[error("the boot of the token has logged in")]
    LoggedIn,
    /// The address answers at another NIC than it was issued for.
    #[error("the token was given to another NIC")]
    ForeignNic,
    /// The kernel does not know at which NIC the address answers. It sent that NIC packets just now, so this is rare;
    /// the client asks again.
    #[error("the NIC of the address is not known")]
    UnknownNic,
}

/// The tokens in force, with the answers already given.
pub struct Tokens<Answer> {
    entries: HashMap<Token, Entry<Answer>>,
    issued: u64,
}

impl<Answer: Clone> Tokens<Answer> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { entries: HashMap::new(), issued: 0 }
    }

    /// The token for a DHCP transaction: the one it already has, or `fresh`, which replaces the oldest of a
    /// NIC that has [`PER_NIC_MAX`]. Nothing when the table is full of tokens in force. `ended` says of an answer that
    /// its boot has logged in: such a token is not given again.
    pub fn issue(
        &mut self,
        holder: Holder,
        fresh: Token,
        now: Instant,
        ended: impl Fn(&Answer) -> bool,
    ) -> Option<Token> {
        self.entries.retain(|_, entry| entry.expires > now);
        let spent = |entry: &Entry<Answer>| entry.answer.as_ref().is_some_and(&ended);
        self.entries.retain(|_, entry| entry.holder != holder || !spent(entry));
        if let Some((token, _)) = self.entries.iter().find(|(_, entry)| entry.holder == holder) {
            return Some(token.clone());
        }
        let of_nic = self.entries.iter().filter(|(_, entry)| entry.holder.mac == holder.mac);
        let mut of_nic: Vec<(u64, Token)> =
            of_nic.map(|(token, entry)| (entry.order, token.clone())).collect();
        of_nic.sort_unstable_by_key(|(order, _)| *order);
        for (_, token) in of_nic.iter().rev().skip(PER_NIC_MAX - 1) {
            self.entries.remove(token);
        }
        if self.entries.len() >= TOKENS_MAX {
            return None;
        }
        self.issued += 1;
        let (bound, expires) = (holder.address, now + UNUSED);
        let entry = Entry { holder, bound, order: self.issued, expires, answer: None };
        self.entries.insert(fresh.clone(), entry);
        Some(fresh)
    }

    /// Spends a token, or repeats its answer to the one who spent it, until its boot has `ended`. `decide` is called at
    /// most once per token. Gives the holder with the address it has.
    ///
    /// # Errors
    /// When it is not this client's token, now.
    pub fn spend(
        &mut self,
        token: &str,
        (from, seen_at): (Ipv4Addr, Option<MacAddr>),
        now: Instant,
        ended: impl Fn(&Answer) -> bool,
        decide: impl FnOnce(Holder) -> Answer,
    ) -> Result<(Holder, Answer), Refusal> {
        let entry = self.entries.get_mut(&Token(token.to_owned())).ok_or(Refusal::Unknown)?;
        if entry.expires <= now {
            return Err(Refusal::Unknown);
        }
        if entry.bound.is_some_and(|bound| bound != from) {
            return Err(Refusal::ForeignAddress);
        }
        match (entry.holder.path, seen_at) {
            (Path::Relay, _) => {}
            (Path::Bridge, Some(mac)) if mac == entry.holder.mac => {}
            (Path::Bridge, Some(_)) => return Err(Refusal::ForeignNic),
            (Path::Bridge, None) => return Err(Refusal::UnknownNic),
        }
        entry.bound = Some(from);
        let holder = Holder { address: Some(from), ..entry.holder };
        if let Some(answer) = &entry.answer {
            return if ended(answer) { Err(Refusal::LoggedIn) } else { Ok((holder, answer.clone())) };
        }
        let answer = decide(holder);
        entry.answer = Some(answer.clone());
        entry.expires = now + REPEAT;
        Ok((holder, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    /// No boot has logged in.
    fn none<Answer>(_: &Answer) -> bool {
        false
    }

    fn from(holder: Holder) -> (Ipv4Addr, Option<MacAddr>) {
        (holder.address.unwrap(), Some(holder.mac))
    }

    fn holder(last: u8, transaction: u32) -> Holder {
        Holder {
            mac: MacAddr::from_octets([2, 0, 0, 0, 0, last]).unwrap(),
            address: Some(address(last)),
            transaction,
            path: Path::Bridge,
        }
    }

    fn token(byte: u8) -> Token {
        Token::from_bytes([byte; TOKEN_BYTES])
    }

    #[test]
    fn the_same_client_gets_the_same_answer_for_a_minute() {
        let now = Instant::now();
        let mut tokens = Tokens::new();
        let node = holder(7, 1);
        let issued = tokens.issue(node, token(1), now, none).unwrap();
        assert_eq!(
            tokens.issue(node, token(2), now, none),
            Some(issued.clone()),
            "offer and ack carry one token"
        );
        let mut asked = 0;
        for seconds in [0, 30, 59] {
            let at = now + Duration::from_secs(seconds);
            let answer = tokens.spend(issued.expose(), from(node), at, none, |_| {
                asked += 1;
                asked
            });
            assert_eq!(answer, Ok((node, 1)));
        }
        let late = now + REPEAT;
        assert_eq!(tokens.spend(issued.expose(), from(node), late, none, |_| 9), Err(Refusal::Unknown));
    }

    #[test]
    fn any_other_use_is_refused() {
        let now = Instant::now();
        let mut tokens = Tokens::new();
        let node = holder(7, 1);
        let neighbour = holder(8, 1);
        let issued = tokens.issue(node, token(1), now, none).unwrap();
        let mut spend =
            |token: &str, client: Holder, at| tokens.spend(token, from(client), at, none, |_| ()).map(|_| ());
        assert_eq!(spend(token(9).expose(), node, now), Err(Refusal::Unknown));
        assert_eq!(spend("", node, now), Err(Refusal::Unknown));
        assert_eq!(spend(issued.expose(), neighbour, now), Err(Refusal::ForeignAddress));
        let spoofed = Holder { mac: neighbour.mac, ..node };
        assert_eq!(spend(issued.expose(), spoofed, now), Err(Refusal::ForeignNic));
        assert_eq!(spend(issued.expose(), node, now + UNUSED), Err(Refusal::Unknown));
        assert_eq!(spend(issued.expose(), node, now), Ok(()), "a refused use does not spend it");
    }

    #[test]
    fn a_nic_that_is_not_known_is_refused() {
        let now = Instant::now();
        let mut tokens = Tokens::new();
        let node = holder(7, 1);
        let issued = tokens.issue(node, token(1), now, none).unwrap();
        let refused = tokens.spend(issued.expose(), (address(7), None), now, none, |_| ());
        assert_eq!(refused, Err(Refusal::UnknownNic));
        let spent = tokens.spend(issued.expose(), from(node), now, none, |_| ());
        assert_eq!(spent, Ok((node, ())), "a refused use does not spend it");
    }

    #[test]
    fn another_transaction_does_not_take_the_token_away() {
        let now = Instant::now();
        let mut tokens: Tokens<()> = Tokens::new();
        let node = holder(7, 1);
        let other = tokens.issue(holder(8, 1), token(100), now, none).unwrap();
        let own = tokens.issue(node, token(1), now, none).unwrap();
        for transaction in 2..=4 {
            let fresh = token(u8::try_from(transaction).unwrap());
            tokens.issue(holder(7, transaction), fresh, now, none).unwrap();
        }
        let spend = |tokens: &mut Tokens<()>, token: &Token, client: Holder| {
            tokens.spend(token.expose(), from(client), now, none, |_| ())
        };
        assert_eq!(spend(&mut tokens, &own, node), Ok((node, ())));
        let fifth = tokens.issue(holder(7, 5), token(5), now, none).unwrap();
        assert_eq!(spend(&mut tokens, &own, node), Err(Refusal::Unknown), "the oldest makes room");
        assert_eq!(spend(&mut tokens, &fifth, node), Ok((holder(7, 5), ())));
        assert_eq!(spend(&mut tokens, &other, holder(8, 1)), Ok((holder(8, 1), ())), "of its own NIC only");
        assert_eq!(tokens.entries.len(), PER_NIC_MAX + 1);
    }

    #[test]
    fn s5_after_the_login_the_token_is_refused_and_the_next_boot_has_another() {
        let now = Instant::now();
        let mut tokens = Tokens::new();
        let node = holder(7, 0);
        let issued = tokens.issue(node, token(1), now, none).unwrap();
        assert_eq!(tokens.spend(issued.expose(), from(node), now, none, |_| 1), Ok((node, 1)));
        let logged_in = |boot: &u32| *boot <= 1;
        let again = tokens.spend(issued.expose(), from(node), now, logged_in, |_| 2);
        assert_eq!(again, Err(Refusal::LoggedIn));
        let next = tokens.issue(node, token(2), now, logged_in).unwrap();
        assert_ne!(next, issued);
        assert_eq!(tokens.spend(next.expose(), from(node), now, logged_in, |_| 2), Ok((node, 2)));
    }

    #[test]
    fn an_address_given_by_another_server_is_bound_by_the_first_use() {
        let now = Instant::now();
        let mut tokens = Tokens::new();
        let node = Holder { address: None, ..holder(7, 1) };
        let issued = tokens.issue(node, token(1), now, none).unwrap();
        let mut spend = |client: (Ipv4Addr, Option<MacAddr>)| {
            tokens.spend(issued.expose(), client, now, none, |_| ()).map(|(holder, ())| holder.address)
        };
        assert_eq!(spend(from(holder(8, 1))), Err(Refusal::ForeignNic), "a neighbour");
        assert_eq!(spend((address(7), Some(node.mac))), Ok(Some(address(7))));
        assert_eq!(spend((address(9), Some(node.mac))), Err(Refusal::ForeignAddress), "another address");
    }

    #[test]
    fn behind_a_relay_only_the_address_is_known() {
        let now = Instant::now();
        let mut tokens = Tokens::new();
        let node = Holder { path: Path::Relay, ..holder(7, 1) };
        let issued = tokens.issue(node, token(1), now, none).unwrap();
        let router = Some(holder(99, 1).mac);
        let foreign = tokens.spend(issued.expose(), (address(8), router), now, none, |_| ());
        assert_eq!(foreign, Err(Refusal::ForeignAddress));
        let own = tokens.spend(issued.expose(), (address(7), router), now, none, |_| ());
        assert_eq!(own, Ok((node, ())));
    }
}
