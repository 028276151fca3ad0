//! A deployment's database, as somebody sees it who has the machine: SQLite's file or a database of PostgreSQL.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::deployment::Deployment;
use crate::host::run;
use crate::postgres::Postgres;

impl Deployment {
    /// Sets another database, in PostgreSQL, for the next start.
    pub fn database_set(&mut self, url: String) {
        let text = fs::read_to_string(self.config()).unwrap();
        let others: Vec<&str> = text.lines().filter(|line| !line.starts_with("database = ")).collect();
        fs::write(self.config(), format!("database = \"{url}\"\n{}\n", others.join("\n"))).unwrap();
        self.database = Some(url);
    }

    /// Runs a statement on the control plane's database, and gives the first value of its answer as text.
    #[must_use]
    pub fn sql(&self, statement: &str) -> String {
        if let Some(url) = &self.database {
            return Postgres::sql(url, statement).lines().next().unwrap_or_default().to_owned();
        }
        let program = "import sqlite3, sys\n\
                       with sqlite3.connect(sys.argv[1], timeout=30) as db:\n    \
                       row = db.execute(sys.argv[2]).fetchone()\n    \
                       print('' if row is None else row[0])";
        let database = self.data.join("control-plane/bmi.sqlite");
        let said = run("/usr/bin/python3", &["-c", program, database.to_str().unwrap(), statement]);
        said.trim_end().to_owned()
    }

    /// Writes to the database for so many seconds, and keeps all others from it. Comes back when it does.
    #[must_use]
    pub fn database_hold(&self, seconds: u32) -> Child {
        let mut holder = match &self.database {
            Some(url) => Postgres::writer(url, seconds),
            None => {
                let hold = "import sqlite3, sys, time\n\
                            held = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n\
                            held.execute('BEGIN IMMEDIATE')\nprint('held', flush=True)\n\
                            time.sleep(int(sys.argv[2]))\n";
                let mut python = Command::new("/usr/bin/python3");
                python.args(["-c", hold]).arg(self.data.join("control-plane/bmi.sqlite"));
                python.arg(seconds.to_string());
                python
            }
        };
        let mut holder = holder.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        holder
    }

    /// Everything that the database holds, as bytes: SQLite's files, or a dump.
    #[must_use]
    pub fn database_bytes(&self) -> Vec<u8> {
        match &self.database {
            Some(url) => Postgres::dump(url).into_bytes(),
            None => ["bmi.sqlite", "bmi.sqlite-wal"]
                .into_iter()
                .flat_map(|name| fs::read(self.data.join("control-plane").join(name)).unwrap_or_default())
                .collect(),
        }
    }
}
