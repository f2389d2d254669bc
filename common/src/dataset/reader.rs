//! The texts of a plan: files in the order of its selection, rows in order, each text with its origin.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::vec;

use super::content::{self, HashingFile};
use super::error::At;
use super::opener::{FileOpener, name_of};
use super::rows::{Cell, Content, Rows, choose_columns};
use super::selection::{self, Entry, Fingerprint, Leg, Pool};
use super::source::{Columns, Place, SourceFile};
use super::{BadRow, DatasetError, Format, READER_VERSION, Sampling, TextsPlan, TextsSpec};
use crate::hub::ContentId;
use crate::seed::RowKeys;
use crate::texts::Text;

/// Warnings that are kept: a dataset may have thousands of files.
const WARNINGS_MAX: usize = 20;

/// A shuffle of Parquet alone first looks at an eighth more rows than it needs texts, and at so many more: some are blank.
const SPARE_ROWS: usize = 64;

/// Rows whose keys are made before anything is read: more than that, and everything is read instead.
const KEYED_ROWS_MAX: u64 = 1 << 32;

/// What a dataset holds, found by reading it once.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The texts, counted; local files with their content and, where they were read, with their columns.
    pub spec: TextsSpec,
    /// What was counted beside the texts.
    pub tally: Tally,
    /// The columns read of each file; none for `.txt`, and where nothing of a file was read.
    pub columns: Vec<Option<Columns>>,
    /// What a person should hear, one sentence each.
    pub warnings: Vec<String>,
}

/// Reads what `plan` speaks of: which texts it gives, and what its local files are.
///
/// Decompression stops at the last text wanted, the rest of a local file is only digested. A hub file of which a prefix
/// was read has been verified by nobody.
pub fn survey(mut plan: TextsPlan, files: &dyn FileOpener) -> Result<Survey, DatasetError> {
    let mut reader = TextReader::open(plan.clone(), None, files)?;
    for text in reader.by_ref() {
        text?;
    }
    let tally = reader.tally;
    if tally.n_texts == 0 {
        let file = match &plan.files[..] {
            [only] => name_of(only),
            _ => plan.dataset,
        };
        return Err(DatasetError::NoTexts { file, n_blank: tally.n_blank, n_bad: tally.n_bad });
    }
    let (columns, warnings) = (reader.columns().to_vec(), reader.warnings().to_vec());
    for ((file, content), columns) in plan.files.iter_mut().zip(&reader.contents).zip(&columns) {
        if matches!(file.place, Place::Local { .. }) {
            file.content.clone_from(content);
            // The same texts have the same key, whether their column was named or found.
            file.columns.clone_from(columns);
        }
    }
    Ok(Survey { spec: TextsSpec { plan, n_texts: tally.n_texts }, tally, columns, warnings })
}

/// The texts of `plan`.
///
/// What the iterator gave is valid once it has returned `None`: local files have been read to their ends by then, whatever
/// was wanted of them, and have the content of the plan, and there were `n_texts` texts, where that is given. A file with
/// another content gives [`DatasetError::Changed`], whatever else is wrong with it. A hub file that was read to its end has
/// the content of the plan; of one that was left before, or of Parquet, the bytes read are as the hub gave them.
pub fn read_texts<'a>(
    plan: &TextsPlan,
    n_texts: Option<u32>,
    files: &'a dyn FileOpener,
) -> Result<TextReader<'a>, DatasetError> {
    if let Some(file) = plan.unpinned() {
        return Err(DatasetError::Unpinned { file: name_of(file) });
    }
    TextReader::open(plan.clone(), n_texts, files)
}

/// What a reader has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Texts given.
    pub n_texts: u32,
    /// Texts of white space only, and empty cells, that were passed over; a shuffle looks at more rows than it takes.
    pub n_blank: u64,
    /// Unusable rows that were passed over; 0 unless they are skipped.
    pub n_bad: u64,
    /// Texts equal to an earlier one, or in a shuffle to one with a smaller key: left out with `dedupe`, else only counted.
    pub n_duplicates: u64,
    /// Bytes of the texts given.
    pub n_bytes: u64,
}

/// An iterator over the texts of a plan. Ends for good after its first error.
pub struct TextReader<'a> {
    source: Source<'a>,
    n_texts: Option<u32>,
    legs: VecDeque<Leg>,
    /// The texts that a shuffle has picked, by file: rows and places in them.
    picks: Option<BTreeMap<u32, BTreeSet<(u64, u32)>>>,
    open: Option<OpenFile<'a>>,
    /// Texts of the row read last that are still to be given.
    pending: vec::IntoIter<(u16, String)>,
    pending_row: u64,
    /// Fingerprints of the texts given.
    seen: HashSet<Fingerprint>,
    tally: Tally,
    contents: Vec<Option<ContentId>>,
    done: bool,
}

/// The files of a plan, and what is known of them.
struct Source<'a> {
    plan: TextsPlan,
    files: &'a dyn FileOpener,
    columns: Vec<Option<Columns>>,
    warnings: Vec<String>,
    n_warnings: usize,
    /// The file opened last.
    current: Option<u32>,
}

/// The texts of a row, each with the place of its column.
type RowTexts = Vec<(u16, String)>;

/// A file that is read.
struct OpenFile<'a> {
    file: u32,
    rows: Rows<'a>,
    joined: bool,
    n_bad: u64,
    first_bad: Option<(At, BadRow)>,
}

impl<'a> TextReader<'a> {
    /// What has been counted so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The columns of each file that was read so far; none for `.txt`.
    pub fn columns(&self) -> &[Option<Columns>] {
        &self.source.columns
    }

    /// What a person should hear of the files that have been left, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.source.warnings
    }

    fn open(plan: TextsPlan, n_texts: Option<u32>, files: &'a dyn FileOpener) -> Result<Self, DatasetError> {
        if plan.reader_version != READER_VERSION {
            return Err(DatasetError::OtherReader { found: plan.reader_version });
        }
        let settings = plan.settings;
        let n_files = u32::try_from(plan.files.len()).unwrap_or(u32::MAX);
        let (columns, contents) = (vec![None; plan.files.len()], vec![None; plan.files.len()]);
        Ok(Self {
            legs: selection::legs(settings.sampling, n_files, settings.num_samples),
            source: Source { columns, files, warnings: Vec::new(), n_warnings: 0, current: None, plan },
            n_texts,
            picks: None,
            open: None,
            pending: Vec::new().into_iter(),
            pending_row: 0,
            seen: HashSet::new(),
            tally: Tally::default(),
            contents,
            done: false,
        })
    }

    fn next_text(&mut self) -> Result<Option<Text>, DatasetError> {
        if let (Sampling::Shuffle { seed }, None) = (self.source.plan.settings.sampling, &self.picks) {
            self.picks = Some(self.source.pick(seed, &mut self.tally)?);
        }
        while let Some(leg) = self.legs.front() {
            if leg.quota == 0 {
                self.next_leg()?;
                continue;
            }
            match self.pending.next() {
                Some((column, text)) => {
                    if let Some(text) = self.take(column, text) {
                        return Ok(Some(text));
                    }
                }
                None if self.open.is_some() => self.next_row()?,
                None => self.next_file()?,
            }
        }
        Ok(None)
    }

    /// Leaves the leg that has all its texts, or has run dry.
    fn next_leg(&mut self) -> Result<(), DatasetError> {
        self.pending = Vec::new().into_iter();
        self.legs.pop_front();
        self.close()
    }

    fn next_file(&mut self) -> Result<(), DatasetError> {
        let Some(leg) = self.legs.front_mut() else { return Ok(()) };
        match leg.files.pop_front() {
            None => leg.quota = 0,
            Some(file) => {
                let is_wanted = self.picks.as_ref().is_none_or(|picks| picks.contains_key(&file));
                self.open = if is_wanted { Some(self.source.open(file)?) } else { None };
            }
        }
        Ok(())
    }

    fn next_row(&mut self) -> Result<(), DatasetError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut picked = None;
        if let Some(picks) = &mut self.picks {
            let Some((row, _)) = picks.get(&open.file).and_then(BTreeSet::first) else {
                return self.close();
            };
            open.rows.skip_to(*row);
            picked = Some(picks);
        }
        // The rows of a shuffle were counted when it was made.
        let mut counted = Tally::default();
        let tally = if picked.is_some() { &mut counted } else { &mut self.tally };
        let Some((row, texts)) = self.source.next_texts(open, tally)? else {
            return self.close();
        };
        let texts = match picked.and_then(|picks| picks.get_mut(&open.file)) {
            None => texts,
            Some(picks) => {
                let is_picked = |(place, text)| picks.remove(&(row, place)).then_some(text);
                (0..).zip(texts).filter_map(is_picked).collect()
            }
        };
        self.pending = texts.into_iter();
        self.pending_row = row;
        Ok(())
    }

    /// A text that comes next, if it is one to give.
    fn take(&mut self, column: u16, text: String) -> Option<Text> {
        if text.trim().is_empty() {
            self.tally.n_blank += 1;
            return None;
        }
        if !self.seen.insert(selection::fingerprint(&text)) {
            self.tally.n_duplicates += 1;
            if self.source.plan.settings.dedupe {
                return None;
            }
        }
        if let Some(leg) = self.legs.front_mut() {
            leg.quota -= 1;
        }
        self.tally.n_texts += 1;
        self.tally.n_bytes += text.len() as u64;
        let file = self.open.as_ref().map_or(0, |open| open.file);
        Some(Text { file, row: self.pending_row, column, text })
    }

    /// Leaves the file that is open.
    fn close(&mut self) -> Result<(), DatasetError> {
        if let Some(mut open) = self.open.take() {
            let found = open.rows.finish()?;
            if found.is_some() {
                self.contents[open.file as usize] = found;
            }
            if self.picks.is_none() {
                self.source.warn(&mut open);
            }
        }
        Ok(())
    }

    /// Digests the local files that were not read by lines, and compares the number of texts.
    fn verify_end(&mut self) -> Result<(), DatasetError> {
        for (file, content) in self.source.plan.files.iter().zip(&mut self.contents) {
            if content.is_none() && matches!(file.place, Place::Local { .. }) {
                *content = digest(file, self.source.files)?;
            }
        }
        match self.n_texts {
            Some(expected) if expected != self.tally.n_texts => Err(DatasetError::Changed {
                file: self.source.plan.dataset.clone(),
                what: format!("{} texts instead of {expected}", self.tally.n_texts),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

impl Iterator for TextReader<'_> {
    type Item = Result<Text, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let result = match self.next_text() {
            Ok(Some(text)) => return Some(Ok(text)),
            Ok(None) => self.verify_end(),
            Err(error) => Err(self.source.explain(error)),
        };
        self.done = true;
        result.err().map(Err)
    }
}

impl<'a> Source<'a> {
    fn open(&mut self, file: u32) -> Result<OpenFile<'a>, DatasetError> {
        self.current = Some(file);
        let source = &self.plan.files[file as usize];
        let limits = self.plan.settings.limits;
        let chosen = &mut self.columns[file as usize];
        if chosen.is_none() {
            *chosen = choose_columns(source, self.files, limits)?;
        }
        let rows = Rows::open(source, self.files, chosen.as_ref(), limits)?;
        let joined = chosen.as_ref().is_some_and(|columns| columns.joined);
        Ok(OpenFile { file, rows, joined, n_bad: 0, first_bad: None })
    }

    /// The texts of the next usable row, each with its column; none at the end of the file.
    fn next_texts(
        &self,
        open: &mut OpenFile<'a>,
        tally: &mut Tally,
    ) -> Result<Option<(u64, RowTexts)>, DatasetError> {
        let settings = &self.plan.settings;
        while let Some(row) = open.rows.next_row()? {
            let texts = match row.content {
                Content::Cells(cells) => texts(cells, open.joined, settings.limits.text_bytes_max),
                Content::Bad(reason) => Err(reason),
            };
            match texts {
                Ok(texts) => return Ok(Some((row.row, texts))),
                Err(reason) if settings.skip_bad_rows => {
                    tally.n_bad += 1;
                    open.n_bad += 1;
                    open.first_bad.get_or_insert((row.at, reason));
                }
                Err(reason) => {
                    let file = name_of(&self.plan.files[open.file as usize]);
                    return Err(DatasetError::Row { file, at: row.at, reason });
                }
            }
        }
        Ok(None)
    }

    /// The first pass of a shuffle: where the texts with the smallest keys are.
    fn pick(
        &mut self,
        seed: u64,
        tally: &mut Tally,
    ) -> Result<BTreeMap<u32, BTreeSet<(u64, u32)>>, DatasetError> {
        if let Some(candidates) = self.candidates(seed)? {
            let mut counted = Tally::default();
            let pool = self.pool(seed, Some(&candidates), &mut counted)?;
            if pool.is_full() {
                *tally = counted;
                return Ok(pool.picks());
            }
            self.warnings.clear();
            self.n_warnings = 0;
        }
        let pool = self.pool(seed, None, tally)?;
        Ok(pool.picks())
    }

    /// The rows with the smallest keys, where all files say how many rows they have and not all of them are needed.
    fn candidates(&self, seed: u64) -> Result<Option<BTreeMap<u32, BTreeSet<u64>>>, DatasetError> {
        if self.plan.files.iter().any(|file| file.format != Format::Parquet) {
            return Ok(None);
        }
        let mut n_rows = Vec::with_capacity(self.plan.files.len());
        for file in &self.plan.files {
            n_rows.push(super::parquet::n_rows(file, self.files)?);
        }
        let wanted = self.plan.settings.num_samples as usize;
        let n = wanted + wanted / 8 + SPARE_ROWS;
        let n_all = n_rows.iter().fold(0u64, |sum, rows| sum.saturating_add(*rows));
        let is_worth_it = (n as u64 + 1..KEYED_ROWS_MAX).contains(&n_all);
        Ok(is_worth_it.then(|| selection::smallest_rows(seed, &n_rows, n)))
    }

    /// Offers all texts of all rows, or of the `wanted` ones, to a pool.
    fn pool(
        &mut self,
        seed: u64,
        wanted: Option<&BTreeMap<u32, BTreeSet<u64>>>,
        tally: &mut Tally,
    ) -> Result<Pool, DatasetError> {
        let settings = self.plan.settings;
        let mut pool = Pool::new(settings.num_samples, settings.dedupe);
        for file in (0..).take(self.plan.files.len()) {
            let mut rows = match wanted {
                None => None,
                Some(wanted) => match wanted.get(&file) {
                    Some(rows) => Some(rows.iter().copied().peekable()),
                    None => continue,
                },
            };
            let mut open = self.open(file)?;
            let mut keys = RowKeys::new(seed, file);
            loop {
                if let Some(rows) = &mut rows {
                    let Some(next) = rows.peek() else { break };
                    open.rows.skip_to(*next);
                }
                let Some((row, texts)) = self.next_texts(&mut open, tally)? else { break };
                if let Some(rows) = &mut rows {
                    // A bad row may have been passed over.
                    while rows.next_if(|wanted| *wanted < row).is_some() {}
                    if rows.next_if_eq(&row).is_none() {
                        continue;
                    }
                }
                let key = keys.key(row);
                for (place, (_, text)) in (0..).zip(texts) {
                    match text.trim().is_empty() {
                        true => tally.n_blank += 1,
                        false => pool.offer(Entry { key, file, row, place }, &text),
                    }
                }
            }
            self.warn(&mut open);
        }
        tally.n_duplicates += pool.n_duplicates;
        Ok(pool)
    }

    fn warn(&mut self, open: &mut OpenFile<'a>) {
        let name = name_of(&self.plan.files[open.file as usize]);
        if open.rows.had_bom() {
            self.push_warning(format!("{name}: a byte order mark at the start was dropped"));
        }
        let n_carriage_returns = open.rows.n_carriage_returns();
        if n_carriage_returns > 0 {
            self.push_warning(format!(
                "{name}: {n_carriage_returns} lines end in a carriage return, which stays part of the text; \
                 convert the file to \\n line ends if that is not meant"
            ));
        }
        if let Some((at, reason)) = &open.first_bad {
            let n_bad = open.n_bad;
            self.push_warning(format!(
                "{name}: {n_bad} unusable rows were skipped, the first at {at}: {reason}"
            ));
        }
    }

    fn push_warning(&mut self, warning: String) {
        self.n_warnings += 1;
        match self.n_warnings - WARNINGS_MAX.min(self.n_warnings) {
            0 => self.warnings.push(warning),
            1 => self.warnings.push("there was one more such warning".to_owned()),
            n_more => {
                if let Some(last) = self.warnings.last_mut() {
                    *last = format!("there were {n_more} more such warnings");
                }
            }
        }
    }

    /// Another content of a local file explains any error in it better than the error itself does.
    fn explain(&self, error: DatasetError) -> DatasetError {
        let file = self.current.map(|file| &self.plan.files[file as usize]);
        let file = file.filter(|file| file.content.is_some() && matches!(file.place, Place::Local { .. }));
        match file.map(|file| digest(file, self.files)) {
            Some(Err(changed @ DatasetError::Changed { .. })) => changed,
            Some(_) | None => error,
        }
    }
}

/// Reads a whole file for what it is.
fn digest(file: &SourceFile, files: &dyn FileOpener) -> Result<Option<ContentId>, DatasetError> {
    content::finish(&mut HashingFile::new(files.open(file)?, file), file, true)
}

/// The texts of a row's cells, each with the place of its column.
fn texts(cells: Vec<Cell>, joined: bool, bytes_max: u32) -> Result<RowTexts, BadRow> {
    let mut texts = Vec::new();
    for (column, cell) in (0..).zip(cells) {
        texts.extend(cell.texts().into_iter().map(|text| (column, text)));
    }
    if joined {
        let parts: Vec<&str> =
            texts.iter().map(|(_, text)| text.as_str()).filter(|text| !text.trim().is_empty()).collect();
        texts = vec![(0, parts.join(" ").trim().to_owned())];
    }
    let limit = u64::from(bytes_max);
    match texts.iter().map(|(_, text)| text.len() as u64).find(|bytes| *bytes > limit) {
        Some(bytes) => Err(BadRow::TooLong { bytes, limit_name: "text_bytes_max", limit }),
        None => Ok(texts),
    }
}
