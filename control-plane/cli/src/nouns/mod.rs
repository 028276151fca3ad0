//! The nouns: one file each, named as in the API.

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod authority;
pub(crate) mod datastore;
pub(crate) mod image;
pub(crate) mod instance;
pub(crate) mod login;
pub(crate) mod member;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod operation;
pub(crate) mod policy;
pub(crate) mod project;
pub(crate) mod quota;
pub(crate) mod role;
pub(crate) mod service_account;
pub(crate) mod whoami;
