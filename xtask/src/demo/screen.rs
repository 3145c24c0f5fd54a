//! What the demo prints: for a person at a terminal, and for whoever reads the log later. Colour only on a terminal that
//! wants it (<https://no-color.org>). A reader that went away is no failure of the demo.

use std::{
    cell::Cell,
    env,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use crate::cmd;

/// Width of the label of a line.
const LABEL: usize = 12;
/// Length of a bar that stands for everything.
const BAR: u64 = 30;

/// Where the demo prints.
pub(crate) struct Screen {
    terminal: bool,
    colour: bool,
    started: Instant,
    /// The last line is one of [`Screen::doing`], to be written over.
    passing: Cell<bool>,
}

#[derive(Clone, Copy)]
enum Ink {
    Bold,
    Dim,
    Green,
    Red,
}

impl Screen {
    /// The standard output; time counts from here.
    pub(crate) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            terminal: terminal && !dumb,
            colour: terminal && !unwanted && !dumb,
            started: cmd::clock(),
            passing: Cell::new(false),
        }
    }

    /// Since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The first line.
    pub(crate) fn title(&self, text: &str) {
        self.line(&self.ink(Ink::Bold, text));
    }

    /// The start of a part.
    pub(crate) fn heading(&self, text: &str) {
        self.line("");
        self.line(&self.ink(Ink::Bold, text));
    }

    /// What is going on now: only for somebody who waits in front of it.
    pub(crate) fn doing(&self, label: &str, text: &str) {
        if self.terminal {
            self.write(&self.ink(Ink::Dim, &format!("{}{label:<LABEL$}{text} …", self.time())));
            self.passing.set(true);
        }
    }

    /// Something that was done or found out.
    pub(crate) fn fact(&self, label: &str, text: &str) {
        let (first, more) = text.split_once('\n').map_or((text, None), |(first, more)| (first, Some(more)));
        self.line(&format!("{}{label:<LABEL$}{first}", self.ink(Ink::Dim, &self.time())));
        for line in more.iter().flat_map(|more| more.lines()) {
            self.line(&format!("{:width$}{line}", "", width = self.time().chars().count() + LABEL));
        }
    }

    /// Plain text under a heading.
    pub(crate) fn text(&self, text: &str) {
        text.lines().for_each(|line| self.line(&format!("  {line}")));
    }

    /// A command or source, and what it printed.
    pub(crate) fn command(&self, title: &str, output: &str) {
        self.line("");
        self.line(&format!("  {}", self.ink(Ink::Dim, &format!("$ {title}"))));
        output.trim_end().lines().for_each(|line| self.line(format!("  {line}").trim_end()));
    }

    /// The good end.
    pub(crate) fn passed(&self, text: &str) {
        self.line("");
        self.line(&format!("{} {text}", self.ink(Ink::Green, "PASSED")));
    }

    /// The bad end.
    pub(crate) fn failed(&self, text: &str) {
        self.line("");
        self.line(&format!("{} {text}", self.ink(Ink::Red, "FAILED")));
    }

    /// A line as it is.
    pub(crate) fn line(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    fn time(&self) -> String {
        format!("{:>7.1} s  ", self.started.elapsed().as_secs_f64())
    }

    fn write(&self, text: &str) {
        let start = if self.passing.take() { "\r\x1b[K" } else { "" };
        let mut out = io::stdout();
        let _ = out.write_all(format!("{start}{text}").as_bytes()).and_then(|()| out.flush());
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Green => "1;32",
            Ink::Red => "1;31",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A bar as long as `part` is of `whole`.
pub(crate) fn bar(part: u64, whole: u64) -> String {
    let length = if whole == 0 { 0 } else { (part * BAR).div_ceil(whole).min(BAR) };
    "#".repeat(usize::try_from(length).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn a_bar_shows_a_share_and_nothing_is_no_bar() {
        assert_eq!((bar(100, 200).len(), bar(1, 1000).len(), bar(0, 200).len(), bar(5, 0).len()), (15, 1, 0, 0));
    }
}
