//! Two projects with everything in them, and somebody for each role.

use bmi_tests::{Api, Deployment, OidcProvider, STORE_SMALL};
use serde_json::{Value, json};

/// The deployment, and its identity provider.
pub(crate) struct World {
    pub(crate) deployment: Deployment,
    pub(crate) provider: OidcProvider,
}

/// What somebody is called in bindings.
pub(crate) fn subject(user: &str) -> String {
    format!("user:corp:{user}")
}

/// A disk that is never filled.
pub(crate) fn open_image(name: &str) -> Value {
    json!({"name": name, "virtual_size": 1 << 20})
}

impl World {
    /// `lab` has everything, `other` has an image of its own. The manager, the member and the viewer are of `lab`, the
    /// stranger manages `other`, the auditor audits everything, `eve` has no role.
    pub(crate) fn new(more: &str) -> Self {
        let mut deployment = Deployment::start(STORE_SMALL);
        let provider = OidcProvider::start(&deployment);
        let settings = provider.settings(&deployment);
        deployment.sign_in_configure(&format!(
            "[local_admin]\nenabled = true\n[sign_in]\nattempts_per_minute = 1000\n{more}\n{settings}"
        ));
        let api = &deployment.api;
        for project in ["lab", "other"] {
            api.project(project);
        }
        for (project, user, role) in [
            ("lab", "manager", "project-admin"),
            ("lab", "member", "project-member"),
            ("lab", "viewer", "project-viewer"),
            ("other", "stranger", "project-admin"),
        ] {
            let member = json!({"subject": subject(user), "role": role});
            api.post(&format!("/v1/projects/{project}/members"), &member).expect(201);
        }
        let auditor = json!({"subject": subject("auditor"), "role": "platform-auditor"});
        api.post("/v1/members", &auditor).expect(201);
        Self { deployment, provider }
    }

    /// Fills `lab`: a network that only it may use, a node, a sealed and an open image.
    pub(crate) fn fill(&self) {
        let api = &self.deployment.api;
        let network = json!({"name": "provisioning", "cidr": "10.77.0.0/24", "projects": ["lab"]});
        api.post("/v1/networks", &network).expect(201);
        api.node_of("node-1", "52:54:00:a2:00:01", "lab");
        api.image("lab", "golden");
        api.post("/v1/projects/lab/images", &open_image("open")).expect(201);
        api.post("/v1/projects/other/images", &open_image("theirs")).expect(201);
    }

    /// The API as somebody.
    pub(crate) fn user(&self, user: &str) -> Api {
        self.bearer(&self.provider.access_token(user))
    }

    /// The API as the holder of a token.
    pub(crate) fn bearer(&self, token: &str) -> Api {
        self.deployment.api.authorized(Some(&format!("Bearer {token}")))
    }
}
