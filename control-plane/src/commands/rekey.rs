//! `rekey`: seals every secret under a new master key.

use bmi_control_plane::config::Config;
use bmi_control_plane::{data_dir, sealed};
use bmi_db::{Db, Held, Purpose};

use super::{Done, block_on};

#[expect(clippy::print_stdout, reason = "a command tells what it did")]
pub fn run(config: &Config) -> Done {
    let _directory = data_dir::hold(&config.data_dir)?;
    let url = config.database_url();
    let _held = Held::of_url(&url, Purpose::Whole)?;
    let db = Db::open(&url)?;
    let path = config.master_key_path();
    let count = block_on(sealed::rekey(&db, &path))??;
    println!("{count} secrets are sealed under a new key in {}", path.display());
    Ok(())
}
