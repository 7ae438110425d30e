//! Answers `{"word": "keel"}` with what the word means, out of a SQLite file that is part of the image.
//!
//! Lambda's file system is read-only and so is the file: opened as immutable, SQLite makes neither lock nor journal.

use std::path::PathBuf;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Question {
    word: String,
}

#[derive(Serialize)]
struct Answer {
    word: String,
    meaning: Option<String>,
}

// One event at a time is all that Lambda sends to an environment, so one thread is all there is.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let words = open()?;
    let words = &words;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Question>| answer(words, event.payload))).await
}

fn open() -> Result<Connection, Error> {
    let root = std::env::var_os("LAMBDA_TASK_ROOT").map_or_else(|| PathBuf::from("/var/task"), PathBuf::from);
    let uri = format!("file:{}?immutable=1", root.join("words.sqlite3").display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(uri, flags)?)
}

fn answer(words: &Connection, question: Question) -> Result<Answer, Error> {
    let meaning = words
        .query_row("SELECT meaning FROM words WHERE word = ?1", [&question.word], |row| row.get("meaning"))
        .optional()?;
    Ok(Answer { word: question.word, meaning })
}
