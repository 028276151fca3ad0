//! Who asks, and what there is to ask for.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bmi_api::NewMember;
use bmi_auth::Subject;
use bmi_auth::secret_token::{self, TokenKind};
use bmi_control_plane::app;
use bmi_db::{DbError, login};
use bmi_tests::Api;
use bmi_types::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{NETWORK, PROJECT, World, admin};

/// The project of those who ask.
pub const OWN: &str = "other";

/// Something with a name and an id, or with an id only.
pub struct Thing {
    pub name: Option<String>,
    pub id: String,
}

/// What there is.
pub struct Things {
    /// Things of [`PROJECT`], by the parameter of a path that they stand for.
    pub anothers: BTreeMap<&'static str, Thing>,
    /// Things of [`OWN`], where a path has another one below them.
    pub own: BTreeMap<&'static str, String>,
    /// The token of a service account of [`OWN`].
    pub token: String,
}

fn id(thing: &Value) -> String {
    thing["id"].as_str().unwrap().to_owned()
}

/// The API as somebody who signed in; `admin` is one of the platform.
pub async fn holder(world: &World, address: SocketAddr, name: &str) -> Api {
    let token = secret_token::generate(TokenKind::Session).unwrap();
    let now = Timestamp::now();
    let login = login::Login {
        id: Uuid::now_v7(),
        holder: login::Holder::Device,
        provider: "corp".to_owned(),
        subject: Subject::user("corp", name),
        display: name.to_owned(),
        groups: Vec::new(),
        created_at: now,
        last_seen_at: now,
        expires_at: now.plus(std::time::Duration::from_secs(3600)),
    };
    let sha256 = secret_token::hash(token.expose());
    let written = world.app.db.system_write(move |tx| login::insert(tx, &login, &sha256)).await;
    written.unwrap_or_else(|error: DbError| panic!("{error}"));
    if name == "admin" {
        let new = NewMember { subject: format!("user:corp:{name}"), role: "platform-admin".to_owned() };
        app::member::member_create(&world.app, &admin(), None, new).await.unwrap();
    }
    Api::new(address, token.expose())
}

/// Makes one thing of every kind in [`PROJECT`], and what those who ask have of their own.
pub async fn make(world: &World, api: &Api) -> Things {
    world.node(1).await;
    let imported = world.import("golden").await;
    world.succeed(&imported).await;
    let provisioned = world.provision(1).await;
    world.succeed(&provisioned).await;
    let operation = provisioned.id.to_string();
    let api = api.clone();
    tokio::task::spawn_blocking(move || make_by_request(&api, operation)).await.unwrap()
}

fn make_by_request(api: &Api, operation: String) -> Things {
    let only = json!({"projects": [PROJECT]});
    api.json("PATCH", &format!("/v1/networks/{NETWORK}"), &only).expect(200);
    api.project(OWN);
    let account = |project: &str, name: &str| {
        let new = json!({"name": name, "role": "project-admin", "scopes": ["*"], "expires_days": 1});
        api.post(&format!("/v1/projects/{project}/service-accounts"), &new).expect(201)
    };
    let member = |project: &str, user: &str| {
        let new = json!({"subject": format!("user:corp:{user}"), "role": "project-admin"});
        api.post(&format!("/v1/projects/{project}/members"), &new).expect(201)
    };
    let (theirs, ours) = (account(PROJECT, "robot"), account(OWN, "reader"));
    member(OWN, "stranger");
    let named = |path: String| {
        let thing = api.get(&path).expect(200);
        Thing { name: Some(thing["name"].as_str().unwrap().to_owned()), id: id(&thing) }
    };
    let only_id = |id: String| Thing { name: None, id };
    let anothers = BTreeMap::from([
        ("project", named(format!("/v1/projects/{PROJECT}"))),
        ("network", named(format!("/v1/networks/{NETWORK}"))),
        ("node", named("/v1/nodes/node-1".to_owned())),
        ("image", named(format!("/v1/projects/{PROJECT}/images/golden"))),
        ("instance", named(format!("/v1/projects/{PROJECT}/instances/instance-1"))),
        ("account", named(format!("/v1/projects/{PROJECT}/service-accounts/robot"))),
        ("token", only_id(id(&theirs["account"]["tokens"][0]))),
        ("member", only_id(id(&member(PROJECT, "manager")))),
        ("operation", only_id(operation)),
    ]);
    let own = BTreeMap::from([("project", OWN.to_owned()), ("account", id(&ours["account"]))]);
    Things { anothers, own, token: ours["token"].as_str().unwrap().to_owned() }
}
