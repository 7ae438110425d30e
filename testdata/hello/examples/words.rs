//! Makes `words.sqlite3` of `words.tsv`: `cargo run --example words` in this directory.

use std::error::Error;
use std::fs;
use std::path::Path;

use rusqlite::Connection;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let database = directory.join("words.sqlite3");
    let text = fs::read_to_string(directory.join("words.tsv"))?;
    if database.exists() {
        fs::remove_file(&database)?;
    }
    let mut words = Connection::open(&database)?;
    let transaction = words.transaction()?;
    transaction.execute("CREATE TABLE words (word TEXT PRIMARY KEY, meaning TEXT NOT NULL) WITHOUT ROWID", [])?;
    for line in text.lines() {
        let (word, meaning) = line.split_once('\t').ok_or_else(|| format!("no tab in `{line}`"))?;
        transaction.execute("INSERT INTO words VALUES (?1, ?2)", [word, meaning])?;
    }
    transaction.commit()?;
    Ok(())
}
