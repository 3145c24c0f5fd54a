//! What became of the sessions, event by event: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::fleet::Census;

/// One event.
#[derive(Clone, Debug)]
pub struct Row {
    /// What happened.
    pub event: String,
    /// What became of the sessions.
    pub census: Census,
}

/// All events of a scene.
#[derive(Clone, Debug)]
pub struct Report {
    scene: String,
    rows: Vec<Row>,
}

impl Report {
    /// An empty one.
    #[must_use]
    pub fn new(scene: &str) -> Self {
        Self { scene: scene.to_owned(), rows: Vec::new() }
    }

    /// Adds an event, and says it at once.
    pub fn note(&mut self, event: &str, census: Census) {
        println!("{}", line(event, &census));
        census.errors.iter().for_each(|error| println!("    {error}"));
        self.rows.push(Row { event: event.to_owned(), census });
    }

    /// The table.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text =
            format!("{}\n{:<58}{:>14}{:>8}{:>14}\n", self.scene, "event", "survived", "wrong", "largest gap");
        for Row { event, census } in &self.rows {
            let _ = writeln!(text, "{}", line(event, census));
        }
        text
    }

    /// Every figure.
    #[must_use]
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|Row { event, census }| {
            json!({
                "event": event,
                "sessions": census.sessions,
                "survived": census.survived,
                "wrong_results": census.wrong,
                "largest_gap_ms": millis(census.gap),
            })
        });
        json!({
            "scene": self.scene,
            "rows": rows.collect::<Vec<_>>(),
            "keys": {
                "sessions": "MySQL sessions open when the event came: half idle, three tenths with a query now and then, \
                             two tenths with transactions",
                "survived": "those that answered after it, on the same connection",
                "largest_gap_ms": "the longest time that a query waited for its answer",
            },
        })
    }

    /// Prints the table, writes the JSON to `target/survival-<scene>.json`, and judges.
    ///
    /// # Errors
    /// When a session was lost or an answer was wrong.
    pub fn finish(&self) -> Result<()> {
        println!("\n{}", self.text());
        let path = directory()?.join(format!("survival-{}.json", self.scene.replace(' ', "-")));
        fs::write(&path, format!("{:#}\n", self.json())).with_context(|| format!("write {}", path.display()))?;
        for Row { event, census } in &self.rows {
            ensure!(
                census.survived == census.sessions && census.wrong == 0 && census.sessions > 0,
                "{event}: {} of {} sessions survived, {} wrong answers: {:?}",
                census.survived,
                census.sessions,
                census.wrong,
                census.errors
            );
        }
        Ok(())
    }
}

fn line(event: &str, census: &Census) -> String {
    let survived = format!("{}/{}", census.survived, census.sessions);
    format!("{event:<58}{survived:>14}{:>8}{:>11.0} ms", census.wrong, millis(census.gap))
}

/// The target directory of the running program.
fn directory() -> Result<PathBuf> {
    let running = std::env::current_exe().context("find the running program")?;
    let target = running.ancestors().find(|path| path.file_name().is_some_and(|name| name == "target"));
    Ok(target.map_or_else(std::env::temp_dir, Path::to_owned))
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}
