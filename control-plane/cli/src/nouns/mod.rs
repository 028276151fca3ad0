//! The nouns: one file each, named as in the API.

pub(crate) mod datastore;
pub(crate) mod image;
pub(crate) mod instance;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod operation;
pub(crate) mod project;
pub(crate) mod whoami;
