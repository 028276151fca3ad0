//! `migrate`: brings the database up to date, as a server that starts would.

use bmi_control_plane::config::Config;
use bmi_db::Db;

use super::Done;

#[expect(clippy::print_stdout, reason = "a command tells what it did")]
pub fn run(config: &Config) -> Done {
    Db::open(&config.database_url())?;
    println!("the database is up to date");
    Ok(())
}
