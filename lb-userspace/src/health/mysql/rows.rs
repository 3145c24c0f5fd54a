//! The answer to a statement, packet by packet: column count, columns, rows. Text protocol, bounded.

use super::reader::Reader;
use crate::printable::clean;

/// Most columns that are read: SHOW REPLICA STATUS has some 60.
const COLUMNS: u64 = 512;
/// Most rows that are read.
const ROWS: usize = 4096;
/// Most bytes of values that are kept.
const BYTES: usize = 1 << 20;

/// A value; `None` is NULL.
pub type Value = Option<Vec<u8>>;

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows; each has as many values as there are columns.
    pub rows: Vec<Vec<Value>>,
}

/// Reads an answer.
#[derive(Debug, Default)]
pub(super) struct RowReader {
    stage: Stage,
    rows: Rows,
    bytes: usize,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Count,
    Columns(u64),
    ColumnsEnd,
    Rows,
}

/// Where the answer stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done(Rows),
    /// An error packet; its number and text.
    Error(u16, Vec<u8>),
}

impl RowReader {
    /// Takes the next packet.
    pub(super) fn packet(&mut self, payload: &[u8]) -> Result<Progress, &'static str> {
        if let Some((code, text)) = error(payload) {
            return Ok(Progress::Error(code, text.to_vec()));
        }
        match self.stage {
            Stage::Count => match payload {
                // OK: a statement without rows.
                [0, ..] => return Ok(Progress::Done(Rows::default())),
                [0xfb, ..] => return Err("the server asks for a file"),
                _ => {
                    let count = Reader(payload).length().ok_or("an answer without a column count")?;
                    if count == 0 || count > COLUMNS {
                        return Err("a senseless number of columns");
                    }
                    self.stage = Stage::Columns(count);
                }
            },
            Stage::Columns(left) => {
                self.rows.columns.push(column(payload).ok_or("a broken column")?);
                self.stage = if left > 1 { Stage::Columns(left - 1) } else { Stage::ColumnsEnd };
            }
            Stage::ColumnsEnd if is_end(payload) => self.stage = Stage::Rows,
            Stage::ColumnsEnd => return Err("columns without an end"),
            Stage::Rows if is_end(payload) => return Ok(Progress::Done(std::mem::take(&mut self.rows))),
            Stage::Rows => {
                self.bytes += payload.len();
                if self.rows.rows.len() >= ROWS || self.bytes > BYTES {
                    return Err("an endless answer");
                }
                let row = row(payload, self.rows.columns.len()).ok_or("a broken row")?;
                self.rows.rows.push(row);
            }
        }
        Ok(Progress::More)
    }
}

/// An error packet's number and text. Before the login there may be no SQL state in it.
pub(super) fn error(payload: &[u8]) -> Option<(u16, &[u8])> {
    let mut reader = Reader(payload);
    if reader.byte()? != 0xff {
        return None;
    }
    let code = reader.u16()?;
    let text = reader.0.strip_prefix(b"#").and_then(|state| state.get(5..)).unwrap_or(reader.0);
    Some((code, text))
}

fn is_end(payload: &[u8]) -> bool {
    payload.first() == Some(&0xfe) && payload.len() < 9
}

fn column(payload: &[u8]) -> Option<String> {
    let mut reader = Reader(payload);
    // Catalogue, schema, table, original table, name.
    for _ in 0..4 {
        reader.text()?;
    }
    reader.text().map(clean)
}

fn row(payload: &[u8], columns: usize) -> Option<Vec<Value>> {
    let mut reader = Reader(payload);
    let mut values = Vec::with_capacity(columns);
    for _ in 0..columns {
        if reader.0.first() == Some(&0xfb) {
            reader.byte();
            values.push(None);
        } else {
            values.push(Some(reader.text()?.to_vec()));
        }
    }
    reader.is_empty().then_some(values)
}
