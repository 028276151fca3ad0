//! The `hil` driver: the REST API of the Hardware Isolation Layer, which sets VLANs on the provider's switches.
//!
//! HIL works later: a change is accepted (202) and done some time after, one at a time for each NIC (409 otherwise). What
//! it shows of a node is what is done, not what is under way. So a node counts as detached only when nothing is attached
//! to any of its NICs *and* HIL, asked to detach each NIC once more, says that there is nothing to detach: it says so
//! only when nothing is under way there. That question changes nothing, or takes the node off the network; so looking
//! never puts a node on one. It needs no memory: it holds after a crash and after a lost answer.
//!
//! Deliberately absent: making networks, giving nodes to HIL's project, and power. They are the provider's.

mod client;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bmi_types::{Name, NetworkId, NodeId, Secret};
use tokio::time::Instant;

use super::{Attachment, Inventory, InventoryError, IsolationError, NetworkIsolation, PortReport};
pub use client::hil_url_check;
use client::{Action, Asked, Change, Client};
use view::View;

/// How often is asked whether something is done: switches take seconds.
const POLL: Duration = Duration::from_millis(250);

/// How HIL is reached, and what things are called there.
#[derive(Debug, Clone)]
pub struct HilSettings {
    /// Where its API is, with the version where it has one: `https://hil.example.org/v0`.
    pub url: String,
    /// A user of HIL with access to the project that the nodes are in.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The authorities of HIL's certificate; the system's when not given.
    pub ca_file: Option<PathBuf>,
    /// The channel on which nodes are attached.
    pub channel: String,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// How long a node may take to be attached or detached; it is tried again after that.
    pub operation_timeout: Duration,
    /// HIL's names of nodes that are called otherwise here.
    pub nodes: BTreeMap<Name, String>,
    /// HIL's names of networks that are called otherwise here.
    pub networks: BTreeMap<Name, String>,
}

/// What went wrong with HIL.
#[derive(Debug, thiserror::Error)]
pub enum HilError {
    /// The address.
    #[error("`{0}` is not the address of HIL's API")]
    Url(String),
    /// The file with the authorities.
    #[error("reading {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The client.
    #[error("preparing the connection to HIL")]
    Client(#[source] reqwest::Error),
    /// No answer: it may have been done all the same.
    #[error("HIL did not answer: {doing}")]
    Unanswered {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It says no.
    #[error("HIL refuses ({status}{said}): {doing}")]
    Refused {
        /// What was being done.
        doing: String,
        /// The answer's status.
        status: u16,
        /// What it said.
        said: String,
    },
    /// Something else than its API says.
    #[error("HIL's answer cannot be read: {doing}")]
    Unreadable {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Too much.
    #[error("HIL's answer is too long: {doing}")]
    TooLong {
        /// What was being done.
        doing: String,
    },
    /// An action ended otherwise than done.
    #[error("HIL could not change NIC `{nic}`: the action ended as {how}")]
    Failed {
        /// Which NIC.
        nic: String,
        /// How.
        how: String,
    },
    /// It said that it was done, and shows otherwise.
    #[error("HIL says that NIC `{nic}` was changed, and still shows it as before")]
    ReadBack {
        /// Which NIC.
        nic: String,
    },
    /// It took too long.
    #[error("HIL is not done with NIC `{nic}` after {seconds} s{said}")]
    Late {
        /// Which NIC.
        nic: String,
        /// How long was waited.
        seconds: u64,
        /// What it said last.
        said: String,
    },
    /// The node there and here are not the same.
    #[error("HIL's node `{node}` has no NIC {mac}; it has {found}")]
    NoNic {
        /// HIL's name of the node.
        node: String,
        /// What is missing.
        mac: String,
        /// What it has.
        found: String,
    },
    /// It is on other wires as well.
    #[error("HIL's node `{node}` is on other networks: {places}")]
    Besides {
        /// HIL's name of the node.
        node: String,
        /// On which NICs, channels and networks.
        places: String,
    },
    /// What is to be isolated is not known.
    #[error("looking up what is to be isolated")]
    Inventory(#[from] InventoryError),
}

/// The driver.
pub struct Hil {
    client: Client,
    settings: HilSettings,
    inventory: Arc<dyn Inventory>,
}

/// Whether a change was done, or is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Done,
    Later,
}

impl Hil {
    /// Takes the settings. Nothing is asked yet.
    ///
    /// # Errors
    /// When the address or the authorities cannot be used.
    pub fn new(settings: HilSettings, inventory: Arc<dyn Inventory>) -> Result<Self, HilError> {
        Ok(Self { client: Client::new(&settings)?, settings, inventory })
    }

    async fn network_name(&self, network: NetworkId) -> Result<String, HilError> {
        let name = self.inventory.network(network).await?;
        Ok(self.settings.networks.get(&name).cloned().unwrap_or_else(|| name.to_string()))
    }

    async fn view(&self, node: NodeId) -> Result<View, HilError> {
        let known = self.inventory.node(node).await?;
        let name = self.settings.nodes.get(&known.name).cloned().unwrap_or_else(|| known.name.to_string());
        let shown = self.client.node(&name).await?;
        View::new(name, shown, &known.macs)
    }

    async fn attached(&self, node: NodeId, network: NetworkId) -> Result<(), HilError> {
        let network = self.network_name(network).await?;
        let channel = self.settings.channel.as_str();
        let (since, mut done) = (Instant::now(), BTreeSet::new());
        loop {
            let view = self.view(node).await?;
            view.besides(&network, channel)?;
            let Some(nic) = view.not_on(&network, channel) else { return Ok(()) };
            let change = Change::Connect { network: &network, channel };
            self.turn(&view, nic, change, since, &mut done).await?;
        }
    }

    async fn detached(&self, node: NodeId, network: NetworkId) -> Result<(), HilError> {
        let network = self.network_name(network).await?;
        let (since, mut done) = (Instant::now(), BTreeSet::new());
        loop {
            let view = self.view(node).await?;
            if let Some(nic) = view.on(&network) {
                self.turn(&view, nic, Change::Detach { network: &network }, since, &mut done).await?;
                continue;
            }
            view.bare()?;
            match self.under_way(&view, &network).await? {
                // What was under way when it was looked at first may be done by now.
                None if self.view(node).await?.bare().is_ok() => return Ok(()),
                None => {}
                Some((nic, said)) => self.pause(&nic, since, said).await?,
            }
        }
    }

    async fn observed(&self, node: NodeId, network: NetworkId) -> Result<Attachment, HilError> {
        let network = self.network_name(network).await?;
        let view = self.view(node).await?;
        let channel = self.settings.channel.as_str();
        if view.besides(&network, channel).is_ok() && view.not_on(&network, channel).is_none() {
            return Ok(Attachment::Attached);
        }
        let settled = view.bare().is_ok() && self.under_way(&view, &network).await?.is_none();
        if settled && self.view(node).await?.bare().is_ok() {
            return Ok(Attachment::Detached);
        }
        Ok(Attachment::Elsewhere)
    }

    /// A NIC of a node without attachments on which something is under way, and what HIL says of it. HIL takes a node
    /// from its project only when nothing is, so of a free one it is known.
    async fn under_way(&self, view: &View, network: &str) -> Result<Option<(String, String)>, HilError> {
        if view.is_free() {
            return Ok(None);
        }
        for nic in view.nics() {
            match self.client.change(&view.name, nic, Change::Detach { network }).await? {
                Asked::NotAttached => {}
                Asked::NotNow(said) => return Ok(Some((nic.to_owned(), said))),
                // It came onto the network in between, and goes again.
                Asked::Queued(_) => return Ok(Some((nic.to_owned(), "it is being detached".to_owned()))),
            }
        }
        Ok(None)
    }

    /// Changes one NIC and waits until that is done, or for a moment when it cannot be done now.
    async fn turn(
        &self,
        view: &View,
        nic: &str,
        change: Change<'_>,
        since: Instant,
        done: &mut BTreeSet<String>,
    ) -> Result<(), HilError> {
        if done.contains(nic) {
            return Err(HilError::ReadBack { nic: nic.to_owned() });
        }
        let came = match self.client.change(&view.name, nic, change).await? {
            Asked::Queued(Some(number)) => self.action_wait(nic, &number, since).await?,
            Asked::Queued(None) => {
                self.pause(nic, since, String::new()).await?;
                Came::Later
            }
            Asked::NotNow(said) => {
                self.pause(nic, since, said).await?;
                Came::Later
            }
            // It went in between, or HIL contradicts itself: then not for ever.
            Asked::NotAttached => {
                let said = "HIL shows it as attached, and says that it is not".to_owned();
                self.pause(nic, since, said).await?;
                Came::Later
            }
        };
        if came == Came::Done {
            done.insert(nic.to_owned());
        }
        Ok(())
    }

    async fn action_wait(&self, nic: &str, number: &str, since: Instant) -> Result<Came, HilError> {
        loop {
            match self.client.action(number).await? {
                Action::Done => return Ok(Came::Done),
                Action::Failed(how) => return Err(HilError::Failed { nic: nic.to_owned(), how }),
                Action::Pending => self.pause(nic, since, String::new()).await?,
            }
        }
    }

    async fn pause(&self, nic: &str, since: Instant, said: String) -> Result<(), HilError> {
        let longest = self.settings.operation_timeout;
        if since.elapsed() + POLL > longest {
            let said = if said.is_empty() { said } else { format!(": {said}") };
            return Err(HilError::Late { nic: nic.to_owned(), seconds: longest.as_secs(), said });
        }
        tokio::time::sleep(POLL).await;
        Ok(())
    }
}

#[async_trait]
impl NetworkIsolation for Hil {
    async fn observe(&self, node: NodeId, network: NetworkId) -> Result<Attachment, IsolationError> {
        self.observed(node, network).await.map_err(|error| IsolationError::of(node, error))
    }

    async fn attach(&self, node: NodeId, network: NetworkId) -> Result<(), IsolationError> {
        self.attached(node, network).await.map_err(|error| IsolationError::of(node, error))
    }

    async fn detach(&self, node: NodeId, network: NetworkId) -> Result<(), IsolationError> {
        self.detached(node, network).await.map_err(|error| IsolationError::of(node, error))
    }

    async fn ports(&self, _network: NetworkId) -> Result<Vec<String>, IsolationError> {
        Ok(Vec::new())
    }

    async fn reported(
        &self,
        _network: NetworkId,
        _generation: i64,
        _ports: &[PortReport],
    ) -> Result<(), IsolationError> {
        Ok(())
    }
}
