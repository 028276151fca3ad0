//! `bmi`: the command line of BMI. It speaks the public REST API and nothing else.
//!
//! ```text
//! nouns/     one file per noun: its verbs, their flags, what they send and show
//! chain.rs   verifying the audit log
//! client.rs  requests, answers and problems
//! output.rs  tables, JSON and YAML
//! sessions.rs what `bmi login` began
//! wait.rs    following an operation to its end
//! stream.rs  server-sent events
//! pages.rs   completions and manual pages, from the same source as --help
//! ```

mod chain;
mod client;
mod failure;
mod nouns;
mod output;
mod pages;
mod sessions;
mod stream;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Format, Output};

/// Boot bare-metal servers from copy-on-write clones of golden images.
///
/// A first round: create a project and a network, register a node and assign it, import an image, then
/// `bmi -p PROJECT instance provision NAME --node N --image I --network W --wait` and switch the node on.
///
/// Exit status: 0 done, 1 the operation failed, 2 usage or invalid input, 3 refused (401, 403), 4 not found,
/// 5 conflict or quota, 6 the server cannot be reached.
#[derive(Parser)]
#[command(name = "bmi", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    noun: Noun,
}

/// Flags of every command.
#[derive(Args)]
struct Global {
    /// The control plane, such as http://127.0.0.1:8440.
    #[arg(
        long,
        env = "BMI_SERVER",
        global = true,
        default_value = "http://127.0.0.1:8440",
        value_name = "URL"
    )]
    server: String,
    /// A file with the bearer token; it must not be readable by others. Without one, the session of `bmi login` counts.
    #[arg(long, env = "BMI_TOKEN_FILE", global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Authorities that the server's certificate may come from (PEM), instead of the system's.
    #[arg(long, env = "BMI_CA_FILE", global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The project (name or id) of images and instances.
    #[arg(short, long, env = "BMI_PROJECT", global = true)]
    project: Option<String>,
    /// How to print results.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Follow what takes time to its end, and exit 1 when it fails.
    #[arg(long, global = true)]
    wait: bool,
    /// How long --wait waits, in seconds.
    #[arg(long, global = true, default_value_t = 900, value_name = "SECONDS")]
    timeout: u64,
}

#[derive(Subcommand)]
enum Noun {
    /// Tenants.
    #[command(subcommand)]
    Project(nouns::project::Verb),
    /// Provisioning networks.
    #[command(subcommand)]
    Network(nouns::network::Verb),
    /// Physical servers.
    #[command(subcommand)]
    Node(nouns::node::Verb),
    /// Who serves provisioning networks, and how they join.
    #[command(subcommand)]
    Agent(nouns::agent::Verb),
    /// The authorities that issue the certificates of agents.
    #[command(subcommand)]
    Authority(nouns::authority::Verb),
    /// Disk images; a sealed one is golden and can be cloned.
    #[command(subcommand)]
    Image(nouns::image::Verb),
    /// Nodes that run from a clone.
    #[command(subcommand)]
    Instance(nouns::instance::Verb),
    /// What takes time.
    #[command(subcommand)]
    Operation(nouns::operation::Verb),
    /// Callers that are programs, each in one project.
    #[command(subcommand)]
    ServiceAccount(nouns::service_account::Verb),
    /// Who has which role everywhere.
    #[command(subcommand)]
    Member(nouns::member::Verb),
    /// Roles: what somebody may do.
    #[command(subcommand)]
    Role(nouns::role::Verb),
    /// Why something is allowed or refused.
    #[command(subcommand)]
    Policy(nouns::policy::Verb),
    /// What a project may have, and has.
    #[command(subcommand)]
    Quota(nouns::quota::Verb),
    /// What was done and what was refused.
    #[command(subcommand)]
    Audit(nouns::audit::Verb),
    /// Where images and volumes are kept.
    #[command(subcommand)]
    Datastore(nouns::datastore::Verb),
    /// Signs in at an identity provider, with a browser on any machine.
    Login {
        /// Which provider, where the server has several.
        #[arg(long)]
        provider: Option<String>,
    },
    /// Ends the session of `bmi login`, or the time of a provider's access token.
    Logout,
    /// Shows who you are to the server.
    Whoami,
    /// Prints a completion script for a shell: `source <(bmi completions bash)`.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Writes the manual pages into a directory.
    Man {
        /// The directory; it must exist.
        directory: PathBuf,
    },
}

/// What every verb works with.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) output: Output,
    pub(crate) wait: Option<Duration>,
    project: Option<String>,
}

impl Session {
    /// The project that the command is about.
    fn project(&self) -> Result<&str, Failure> {
        let missing = || Failure::usage("say which project: -p PROJECT, or set BMI_PROJECT");
        self.project.as_deref().ok_or_else(missing)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(Failure::usage(format!("cannot start: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    // What needs no server comes first: it must work without one, and without a token.
    match &arguments.noun {
        Noun::Completions { shell } => return pages::completions(*shell),
        Noun::Man { directory } => return pages::man(directory),
        _ => {}
    }
    let global = arguments.global;
    let session = Session {
        client: Client::new(&global.server, global.token_file.as_deref(), global.ca_file.as_deref())?,
        output: Output::new(global.output),
        wait: global.wait.then(|| Duration::from_secs(global.timeout)),
        project: global.project,
    };
    match arguments.noun {
        Noun::Project(verb) => nouns::project::run(&session, verb).await,
        Noun::Network(verb) => nouns::network::run(&session, verb).await,
        Noun::Node(verb) => nouns::node::run(&session, verb).await,
        Noun::Agent(verb) => nouns::agent::run(&session, verb).await,
        Noun::Authority(verb) => nouns::authority::run(&session, verb).await,
        Noun::Image(verb) => nouns::image::run(&session, verb).await,
        Noun::Instance(verb) => nouns::instance::run(&session, verb).await,
        Noun::Operation(verb) => nouns::operation::run(&session, verb).await,
        Noun::Member(verb) => nouns::member::run(&session, "/v1/members", verb).await,
        Noun::Role(verb) => nouns::role::run(&session, verb).await,
        Noun::Policy(verb) => nouns::policy::run(&session, verb).await,
        Noun::Quota(verb) => nouns::quota::run(&session, verb).await,
        Noun::Audit(verb) => nouns::audit::run(&session, verb).await,
        Noun::Datastore(verb) => nouns::datastore::run(&session, verb).await,
        Noun::ServiceAccount(verb) => nouns::service_account::run(&session, verb).await,
        Noun::Login { provider } => nouns::login::login(&session, provider).await,
        Noun::Logout => nouns::login::logout(&session).await,
        Noun::Whoami => nouns::whoami::run(&session).await,
        Noun::Completions { .. } | Noun::Man { .. } => Ok(()),
    }
}
