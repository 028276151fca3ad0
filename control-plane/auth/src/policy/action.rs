//! Everything that can be allowed or refused.

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $object:literal, $act:literal;)+) => {
        /// What is to be done: a kind of object and an act, as in the policy.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $($(#[$doc])* $name,)+
        }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The kind of object: `image`.
            #[must_use]
            pub const fn object(self) -> &'static str {
                match self { $(Self::$name => $object,)+ }
            }

            /// The act: `write`.
            #[must_use]
            pub const fn act(self) -> &'static str {
                match self { $(Self::$name => $act,)+ }
            }
        }
    };
}

actions! {
    /// See a project.
    ProjectRead = "project", "read";
    /// Create a project.
    ProjectCreate = "project", "create";
    /// Change what a project says of itself.
    ProjectUpdate = "project", "update";
    /// Give a project another name, which tells whether the name is taken.
    ProjectRename = "project", "rename";
    /// Delete a project.
    ProjectDelete = "project", "delete";
    /// See who has which role in a project.
    MemberRead = "member", "read";
    /// Give and take roles.
    MemberWrite = "member", "write";
    /// See the roles there are.
    RoleRead = "role", "read";
    /// Make, change and remove roles.
    RoleWrite = "role", "write";
    /// Ask why something is allowed or refused.
    PolicyRead = "policy", "read";
    /// See service accounts.
    ServiceAccountRead = "service-account", "read";
    /// Make, change, rotate and remove service accounts.
    ServiceAccountWrite = "service-account", "write";
    /// See what a project may have and has.
    QuotaRead = "quota", "read";
    /// Set what a project may have.
    QuotaWrite = "quota", "write";
    /// Read the audit log.
    AuditRead = "audit", "read";
    /// See networks.
    NetworkRead = "network", "read";
    /// Create, change or delete networks.
    NetworkWrite = "network", "write";
    /// See agents, tokens to join with, and the authorities that issue certificates.
    AgentRead = "agent", "read";
    /// Make and revoke tokens with which agents join a network.
    AgentEnrol = "agent", "enrol";
    /// Approve, reject, revoke and replace agents.
    AgentWrite = "agent", "write";
    /// Make a new authority, and retire an old one.
    AuthorityWrite = "authority", "write";
    /// See nodes.
    NodeRead = "node", "read";
    /// Register, change or remove nodes.
    NodeWrite = "node", "write";
    /// Assign nodes to projects and release them.
    NodeAssign = "node", "assign";
    /// See images.
    ImageRead = "image", "read";
    /// Upload, seal or delete images.
    ImageWrite = "image", "write";
    /// Read files of the server's import directory.
    ImageImport = "image", "import";
    /// Let other projects clone an image.
    ImageShare = "image", "share";
    /// See instances and how they booted.
    InstanceRead = "instance", "read";
    /// Provision and deprovision.
    InstanceWrite = "instance", "write";
    /// See operations.
    OperationRead = "operation", "read";
    /// See how full the store is.
    DatastoreRead = "datastore", "read";
    /// See how the service does.
    MetricsRead = "metrics", "read";
}

impl Action {
    /// Reads `object:act`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let (object, act) = word.split_once(':')?;
        Self::ALL.iter().copied().find(|action| action.object() == object && action.act() == act)
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}", self.object(), self.act())
    }
}

/// Some actions: one, all of a kind of object, or all. `image:write`, `image:*`, `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    object: String,
    act: String,
}

/// Why a text is not a permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a permission: `object:act`, `object:*` or `*`; `bmi role permissions` lists them")]
pub struct PermissionError(String);

impl Permission {
    /// From its two parts, as a policy has them.
    #[must_use]
    pub fn of(object: &str, act: &str) -> Self {
        Self { object: object.to_owned(), act: act.to_owned() }
    }

    /// The kind of object, or `*`.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The act, or `*`.
    #[must_use]
    pub fn act(&self) -> &str {
        &self.act
    }

    /// Whether it allows an action.
    #[must_use]
    pub fn allows(&self, action: Action) -> bool {
        (self.object == "*" || self.object == action.object())
            && (self.act == "*" || self.act == action.act())
    }

    /// The actions it allows.
    pub fn actions(&self) -> impl Iterator<Item = Action> {
        Action::ALL.iter().copied().filter(|action| self.allows(*action))
    }
}

impl std::str::FromStr for Permission {
    type Err = PermissionError;

    fn from_str(text: &str) -> Result<Self, PermissionError> {
        let unknown = || PermissionError(text.chars().take(64).collect());
        let permission = match text.split_once(':') {
            None if text == "*" => Self::of("*", "*"),
            Some((object, act)) => Self::of(object, act),
            None => return Err(unknown()),
        };
        if permission.actions().next().is_none() { Err(unknown()) } else { Ok(permission) }
    }
}

impl std::fmt::Display for Permission {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.object.as_str(), self.act.as_str()) {
            ("*", "*") => out.write_str("*"),
            (object, act) => write!(out, "{object}:{act}"),
        }
    }
}
