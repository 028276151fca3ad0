//! `migrate --to`: moves a stopped SQLite deployment to PostgreSQL.
//!
//! The file keeps what it holds, and is marked: no server works on it any more, so that there are never two.

use bmi_control_plane::config::Config;
use bmi_control_plane::data_dir;
use bmi_db::transfer::{Held as Leases, moved, transfer};
use bmi_db::{Db, Held, Kind, Purpose};

use super::{Done, tell};

#[expect(clippy::print_stdout, reason = "a command tells what it did")]
pub fn run(config: &Config, to: &str) -> Done {
    let _directory = data_dir::hold(&config.data_dir)?;
    let url = config.database_url();
    let _source_held = Held::of_url(&url, Purpose::Whole)?;
    let source = Db::open(&url)?;
    if source.kind() != Kind::Sqlite {
        return Err("the configured database is in PostgreSQL already".into());
    }
    let _target_held = Held::of_url(to, Purpose::Whole)?;
    let target = Db::open(to)?;
    if target.kind() != Kind::Postgres {
        return Err("--to must be a URL of PostgreSQL: postgres://USER@HOST/NAME".into());
    }
    let copied = transfer(&source, &target, Leases::Ended)?;
    moved(&source)?;
    tell(&copied);
    println!("moved: now set `database` in the configuration, and start the server");
    Ok(())
}
