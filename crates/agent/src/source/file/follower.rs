//! All followed paths.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tracing::warn;

use super::{
    content::FileId,
    cut::Rule,
    done::Done,
    followed::{Begins, Followed, Look, Patience},
    generation::READ_BYTES,
    mark::{KEY, Mark, key},
    names::{FILES_MAX, Names, expand, table_key},
    settings::{Begin, FileSettings},
};
use crate::{
    AgentError,
    record::Maker,
    run::Mode,
    source::{Chunk, Marks, Meter, watch::Watch},
};

/// Wait after an error.
const RETRY: Duration = Duration::from_secs(5);
/// What is remembered of a table: that it is not new.
const TABLE_MARK: &[u8] = b"{\"version\":1}";

#[derive(Debug)]
struct Table {
    maker: Maker,
    meter: Arc<Meter>,
    rule: Arc<Rule>,
    /// Whether what is found now is read from its end.
    from_end: bool,
}

/// All files that are followed.
#[derive(Debug)]
pub(super) struct Follower {
    names: Vec<Names>,
    tables: Vec<Table>,
    files: BTreeMap<Arc<str>, Followed>,
    /// What was remembered and not asked for yet.
    marks: BTreeMap<Arc<str>, Mark>,
    /// What is handed over before anything else.
    first: VecDeque<Chunk>,
    retry_at: HashMap<Arc<str>, Duration>,
    done: Done,
    patience: Patience,
    mode: Mode,
    buffer: BytesMut,
    is_full: bool,
}

impl Follower {
    pub(super) fn new(settings: Vec<(FileSettings, Maker, Arc<Meter>)>, marks: &Marks, mode: Mode) -> Self {
        let patience = match mode {
            Mode::Follow => Patience {
                grace: Duration::from_secs(2),
                absent: Duration::from_secs(30),
                moved: Duration::from_secs(600),
                late: Duration::from_secs(300),
                to_the_end: false,
            },
            Mode::Once => Patience {
                grace: Duration::ZERO,
                absent: Duration::ZERO,
                moved: Duration::ZERO,
                late: Duration::ZERO,
                to_the_end: true,
            },
        };
        let mut first = VecDeque::new();
        let (mut names, mut tables) = (Vec::new(), Vec::new());
        for (settings, maker, meter) in settings {
            let table_key: Arc<str> = Arc::from(table_key(&settings));
            let from_end = settings.from == Begin::End && !marks.contains_key(&table_key);
            if from_end {
                let mark = Some(Bytes::from_static(TABLE_MARK));
                first.push_back(Chunk::new(&table_key, Vec::new(), mark));
            }
            let maker = maker.with_profile(settings.profile);
            let maker = settings.tenant.as_deref().map_or(maker.clone(), |tenant| maker.with_tenant(tenant));
            let rule = Arc::new(Rule::new(settings.multiline.as_ref()));
            names.push(Names::new(&settings));
            tables.push(Table { maker, meter, rule, from_end });
        }
        let marks = marks.iter().filter(|(key, _)| key.starts_with(KEY));
        let marks = marks.filter_map(|(key, bytes)| Some((Arc::clone(key), Mark::parse(bytes)?))).collect();
        Self {
            names,
            tables,
            files: BTreeMap::new(),
            marks,
            first,
            retry_at: HashMap::new(),
            done: Done::default(),
            patience,
            mode,
            buffer: BytesMut::zeroed(READ_BYTES),
            is_full: false,
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Arc<str>> {
        self.files.keys().cloned()
    }

    /// When a file must be read again though nothing is written to it.
    pub(super) fn due(&self, key: &str) -> Option<Duration> {
        self.files.get(key)?.due(&self.patience)
    }

    /// Looks which files there are. `true` when the kernel gives no notice of some.
    pub(super) fn look(&mut self, now: Duration, watch: &mut Watch) -> Result<bool, AgentError> {
        let (files, marks) = (&self.files, &self.marks);
        let is_known = |path: &Path| {
            let key = key(path);
            files.contains_key(&*key) || marks.contains_key(&*key)
        };
        let (mut found, is_full) = expand(&self.names, is_known);
        if is_full && !self.is_full {
            warn!(files = FILES_MAX, "more files are named than are followed at once; narrow the patterns of [[file]]");
        }
        self.is_full = is_full;
        // What was followed by an agent before us, and is gone.
        for path in marks.keys().filter_map(|key| key.strip_prefix(KEY)).map(PathBuf::from) {
            if let Some(table) = self.names.iter().position(|names| names.covers(&path)) {
                found.push((path, table));
            }
        }
        for (path, table) in found {
            let key = key(&path);
            if let Some(table) = self.tables.get(table).filter(|_| !self.files.contains_key(&*key)) {
                let (maker, meter) = (table.maker.of(&path.to_string_lossy()), Arc::clone(&table.meter));
                let is_named = self.names.iter().any(|names| names.path.as_ref() == Some(&path));
                let begin = Begins { remembered: self.marks.remove(&*key), from_end: table.from_end, is_named };
                let file = Followed::new(path, maker, meter, Arc::clone(&table.rule), begin);
                self.files.insert(Arc::clone(&file.key), file);
            }
        }
        self.refresh(now)?;
        for table in &mut self.tables {
            table.from_end = false;
        }
        let names = &self.names;
        let is_named = |path: &Path| names.iter().any(|names| names.path.as_deref() == Some(path));
        // Rotations of a file that comes back soon are noticed.
        let wait = if self.files.len() > FILES_MAX { Duration::ZERO } else { self.patience.moved };
        self.files.retain(|_, file| !file.is_idle(now, wait) || is_named(&file.path));
        self.measure();
        Ok(self.watch(watch))
    }

    /// Those that were left somewhere come first: what they find is theirs.
    fn refresh(&mut self, now: Duration) -> Result<(), AgentError> {
        let mut taken: HashMap<u64, Vec<(FileId, Arc<str>)>> = HashMap::new();
        let mut order = Vec::new();
        for (key, file) in &mut self.files {
            order.push((!file.is_remembered(), super::followed::is_symlink(&file.path), Arc::clone(key)));
            for generation in file.generations() {
                let id = generation.mark.id;
                taken.entry(id.inode()).or_default().push((id, Arc::clone(key)));
            }
        }
        order.sort();
        for (_, _, key) in order {
            let Some(file) = self.files.get_mut(&key) else { continue };
            let is_taken = |id: &FileId| {
                let others = taken.get(&id.inode());
                others.is_some_and(|others| others.iter().any(|(other, by)| other.is(id) && *by != key))
            };
            let known = file.generations().count();
            let refreshed =
                file.refresh(&Look { now, done: &self.done, taken: &is_taken }, &self.patience, &mut self.buffer);
            if file.generations().count() != known {
                for generation in file.generations() {
                    let id = generation.mark.id;
                    taken.entry(id.inode()).or_default().push((id, Arc::clone(&key)));
                }
            }
            if let Err(error) = refreshed {
                self.failed(&key, error, now)?;
            }
        }
        for file in self.files.values_mut() {
            file.give_up(|id| {
                taken.get(&id.inode()).is_some_and(|others| others.iter().any(|(other, _)| other.is(id)))
            });
        }
        Ok(())
    }

    /// Tells how far reading is behind.
    fn measure(&mut self) {
        let mut lags: Vec<(&Arc<Meter>, u64)> = self.tables.iter().map(|table| (&table.meter, 0)).collect();
        for file in self.files.values() {
            if let Some((_, lag)) = lags.iter_mut().find(|(meter, _)| Arc::ptr_eq(meter, &file.meter)) {
                *lag += file.lag_bytes();
            }
        }
        for (meter, lag) in lags {
            meter.lag_bytes.store(lag, Relaxed);
        }
    }

    fn watch(&mut self, watch: &mut Watch) -> bool {
        let mut is_blind = false;
        for dir in self.names.iter().filter_map(Names::dir) {
            watch.add_dir(&dir);
        }
        for file in self.files.values_mut() {
            let key = Arc::clone(&file.key);
            if let Some(dir) = file.path.parent() {
                watch.add_dir(dir);
            }
            for generation in file.generations() {
                let Some(plain) = generation.content.plain().filter(|_| generation.watch.is_none()) else { continue };
                generation.watch = watch.add_file(plain, &key);
                is_blind |= generation.watch.is_none();
                if let Some(dir) = generation.real.parent() {
                    watch.add_dir(dir);
                }
            }
        }
        is_blind
    }

    /// The next chunk of a file; `None` when there is nothing now.
    pub(super) fn next(
        &mut self,
        key: &Arc<str>,
        now: Duration,
        watch: &mut Watch,
    ) -> Result<Option<Chunk>, AgentError> {
        if let Some(chunk) = self.first.pop_front() {
            return Ok(Some(chunk));
        }
        let Some(file) = self.files.get_mut(key) else { return Ok(None) };
        if self.retry_at.get(key).is_some_and(|at| now < *at) {
            return Ok(None);
        }
        let next = file.next(&mut self.buffer, now, &self.patience, &mut self.done);
        for number in file.unwatched.drain(..) {
            watch.remove_file(number);
        }
        match next {
            Ok(chunk) => {
                if self.retry_at.remove(key).is_some()
                    && let Some(file) = self.files.get(key)
                {
                    file.meter.set_error(None);
                }
                Ok(chunk)
            }
            Err(error) => self.failed(key, error, now).map(|()| None),
        }
    }

    fn failed(&mut self, key: &Arc<str>, error: std::io::Error, now: Duration) -> Result<(), AgentError> {
        let path = self.files.get(key).map(|file| file.path.display().to_string()).unwrap_or_default();
        if self.mode == Mode::Once {
            return Err(AgentError::Source { name: path, source: error });
        }
        let retry_at = self.retry_at.entry(Arc::clone(key)).or_default();
        if now >= *retry_at {
            warn!(path, %error, "file can't be read; trying again");
            if let Some(file) = self.files.get(key) {
                file.meter.set_error(Some(format!("{path}: {error}")));
            }
            *retry_at = now + RETRY;
        }
        Ok(())
    }
}
