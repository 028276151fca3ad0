//! What the provider runs, whoever its tenants are: a management network, Ceph, PostgreSQL, an identity provider and a control
//! plane that agents on other hosts join.

use super::Narrator;
use crate::ceph::Ceph;
use crate::deployment::Deployment;
use crate::golden::golden_image;
use crate::idp::OidcProvider;
use crate::management::{ADDRESS, Management};
use crate::postgres::{Durability, Postgres};

/// How long an agent's certificate lasts, in seconds.
const CERTIFICATE: u64 = 86_400;

/// All of it.
pub(super) struct Provider {
    /// The control plane.
    pub deployment: Deployment,
    /// Where people sign in.
    pub identities: OidcProvider,
    /// Its database.
    pub postgres: Postgres,
    /// Its store.
    pub ceph: Ceph,
    /// The network of these, and of agents' hosts.
    pub management: Management,
}

impl Provider {
    /// Starts all of it.
    pub(super) fn start(narrator: &Narrator) -> Self {
        narrator.say("a management network, Ceph, PostgreSQL, an identity provider and a control plane");
        // Made before this thread is where no package can be fetched.
        let _ = golden_image();
        let management = Management::enter();
        let ceph = Ceph::start();
        let postgres = Postgres::start(Durability::None);
        let mut deployment = Deployment::start_in_ceph_on(&ceph, postgres.database());
        let identities = OidcProvider::start(&deployment);
        let settings = identities.settings(&deployment);
        deployment.sign_in_configure(&format!(
            "[local_admin]\nenabled = true\n[sign_in]\nattempts_per_minute = 1000\n{settings}"
        ));
        deployment.agents_configure(ADDRESS, CERTIFICATE);
        Self { deployment, identities, postgres, ceph, management }
    }
}
